"""The executor of a running process: executes commands, polls the flags, publishes, and checks what stops a flip."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from agent.backends.contract import FlagRef
from agent.commands.command import Command
from agent.commands.keys import load_public
from agent.config.load import rules_hash
from agent.config.model import Config
from agent.errors import BackendError, LedgerError
from agent.events.cloudevents import Event
from agent.executor.background import Background, each_second
from agent.executor.build import make_backends, make_executor, managed, open_ledger
from agent.executor.flag_poller import FlagPoller
from agent.executor.generations import watch_from
from agent.executor.replays import Replays
from agent.executor.result import Decided, ExecutionResult
from agent.executor.result_publisher import ResultPublisher
from agent.executor.resumption import RefusedCommands
from agent.executor.retries import Retries
from agent.executor.skew import Skew
from agent.executor.unforeseen import Failures, shown
from agent.ledger.identity import identity
from agent.ledger.probe import TODO as LEDGER_TODO
from agent.logs.setup import log_event
from agent.state.flags import FlagStatus
from agent.state.incidents import CommandResult

CHECK_EVERY = 10.0
"""Seconds between checks of what would stop a flip; an inability is announced within 30 s (docs/promises.md, P3)."""

REPEAT_EVERY = 30.0
"""Seconds after which an unchanged state is published again, so that its age shows whether an executor is alive."""

RECOVER_EVERY = 1.0
"""Seconds between attempts to read the ledger at the start."""

_CHECK_BUDGET = 2.0
_logger = logging.getLogger(__name__)


class Flips:
    """Executes commands and polls the managed flags. Raises ConfigError if keys or the ledger cannot be used.

    `emit` publishes an event, `result` (if given) the result of a command; no command waits for either.
    """

    def __init__(
        self,
        config: Config,
        emit: Callable[[Event], Awaitable[None]],
        result: Callable[[CommandResult], Awaitable[None]] | None = None,
    ) -> None:
        self._flags = [managed(flag) for flag in config.flags]
        self._backends = make_backends(config)
        self._published: dict[FlagRef, FlagStatus] = {}
        self.problems: list[str] | None = None
        """What would stop a flip, as of the last check; None before the first."""
        self.halt: str | None = None
        """Why nothing is done without a person, if so; one of `problems`."""
        self.skew = Skew(rules_hash(config))
        self._background = Background()
        ledger = open_ledger(config)
        self.ledger = identity(ledger.directory)
        """The id of the ledger, None if the disk gives none."""
        self._watch = watch_from(ledger)
        publics = [load_public(path) for path in config.public_keys]
        self._executor = make_executor(config, ledger, self._watch, self._backends, publics, emit)
        self._replays = Replays()
        self._retries = Retries(self._retry)
        self._results = ResultPublisher(result)
        self._refused = RefusedCommands()
        self._failures = Failures()
        self._pollers = {
            name: FlagPoller(name, backend, refs, self._executor.read_flag)
            for name, backend in self._backends.items()
            if (refs := list(dict.fromkeys(flag.ref for flag in self._flags if flag.backend == name)))
        }

    def prime(self, status: FlagStatus) -> None:
        """Continue from a state that an earlier process published."""
        self._watch.prime(status)

    def trusts(self, raw: bytes) -> bool:
        """Has an accepted key signed these bytes?"""
        return self._executor.trusts(raw)

    async def execute(self, raw: bytes) -> list[FlagStatus]:
        """Execute a command; return the states of flags to publish, as soon as the flag has its state.

        If nothing could be decided, the command is retried beside the commands that follow, until it is decided or
        expired: a backend that is away must not delay the flags of another.
        """
        if self._replays.known(raw):
            return []
        result = self._take(await self._executor.decide(raw), raw)
        self._replays.note(raw, result)
        if not result.final and result.command is not None:
            self._retries.add(result.command, raw)
        return [] if result.status is None else self._news(result.status)

    async def _retry(self, command: Command, raw: bytes) -> ExecutionResult:
        return self._take(await self._executor.execute_verified(command, raw), raw)

    def refuse(self, raws: Sequence[bytes]) -> None:
        """Refuse bytes that no accepted key has signed. All are counted; one a second is published."""
        for raw in raws:
            decided = self._executor.refuse(raw)
            if decided is not None:
                self._take(decided, raw)

    def _take(self, decided: Decided, raw: bytes) -> ExecutionResult:
        """Schedule the publication of a result and its events."""
        result = decided.result
        if result.command is not None:
            self.skew.note(result.command)
            self._refused.note(raw, result)
            self._failures.note(result.command.backend, result)
        if decided.publish is not None:
            log_event(_logger, "command.result", outcome=result.outcome, detail=result.detail, final=result.final)
            self.later(partial(self._results.publish, raw, result, time.time()))
            self.later(decided.publish)
        return result

    def later(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run work that no command may wait for."""
        self._background.start(work)

    def recover(self) -> None:
        """Start to finish what an earlier process left open, beside the first commands."""
        self.later(self._recover)

    async def _recover(self) -> None:
        while True:
            try:
                for command, raw in await self._executor.recover(self.later):
                    self._retries.add(command, raw)
                return
            except LedgerError as error:
                log_event(_logger, "ledger.failed", level=logging.ERROR, step="recover", error=str(error))
            except Exception as error:
                # An entry that an earlier process left open may be a write that is not on record.
                log_event(_logger, "recover.failed", level=logging.ERROR, error=repr(error)[:500])
            await asyncio.sleep(RECOVER_EVERY)

    async def watch(self, publish: Callable[[FlagStatus], Awaitable[None]]) -> None:
        """Read every managed flag, each backend at its own pace, and publish what changed or grew old; for ever."""

        async def seen(status: FlagStatus) -> None:
            for news in self._news(status):
                await publish(news)

        async with asyncio.TaskGroup() as group:
            for poller in self._pollers.values():
                group.create_task(poller.run(seen))

    async def publish_pending(self) -> None:
        """Publish pending events and resumptions, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(each_second(self._executor.publish_pending))
            # A task of its own: an audit log that takes no records must not delay it.
            group.create_task(each_second(self._publish_resumption))

    async def _publish_resumption(self) -> None:
        await self._refused.publish_resumption(self._executor.halted, self._results.publish, time.time())

    async def check(self) -> list[str]:
        """Return what would stop a flip now, a sentence each; empty if every flag can be made safe without a person."""
        found = await asyncio.gather(self._halted(), self._disk(), *(self._check(name) for name in self._backends))
        self.problems = [*(problem for problems in found for problem in problems), *self._failures.problems()]
        return self.problems

    async def _halted(self) -> list[str]:
        try:
            self.halt = await self._executor.halted()
        except LedgerError as error:
            return [str(error)]
        return [] if self.halt is None else [self.halt]

    async def _disk(self) -> list[str]:
        try:
            await self._executor.probe()
        except LedgerError as error:
            return [f"{error}; {LEDGER_TODO}"]
        return []

    async def _check(self, name: str) -> list[str]:
        wanted = [(flag.ref, flag.safe) for flag in self._flags if flag.backend == name]
        try:
            # A backend that misses its own deadline must not hide the others.
            async with asyncio.timeout(2 * _CHECK_BUDGET):
                health = await self._backends[name].health(wanted, deadline=time.monotonic() + _CHECK_BUDGET)
        except TimeoutError:
            return [f"backend {name}: no answer within {2 * _CHECK_BUDGET:g} s"]
        except BackendError as error:
            return [f"backend {name}: {error}"]
        except Exception as error:
            return [f"backend {name}: an error of flipback: {shown(error)}"]
        return [f"backend {name}: {problem}" for problem in health.problems]

    def unreadable(self) -> list[str]:
        """Return the managed flags whose last read failed, and why."""
        return sorted(f"{ref.environment}/{ref.flag}: {error}" for _, ref, error in self._failing())

    def unread(self) -> list[str]:
        """As `unreadable`, without those whose reason is one of `problems`: that holds for all flags of the backend."""
        announced = set(self.problems or ())
        return sorted(
            f"{ref.environment}/{ref.flag}: {error}"
            for name, ref, error in self._failing()
            if f"backend {name}: {error}" not in announced
        )

    def _failing(self) -> Iterator[tuple[str, FlagRef, str]]:
        for name, poller in self._pollers.items():
            for ref, error in poller.failing.items():
                yield name, ref, error

    def _news(self, status: FlagStatus) -> list[FlagStatus]:
        ref = FlagRef(status.flag, status.environment)
        last = self._published.get(ref)
        if last is not None and last.version == status.version and status.at - last.at < REPEAT_EVERY:
            return []
        self._published[ref] = status
        return [status]

    async def close(self) -> None:
        self._retries.close()
        self._background.close()
        self._executor.close()
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))
