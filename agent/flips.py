"""The executor with what it works on: backends made from the configuration, the ledger, and the flags' states."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from agent import backends
from agent.backends.contract import FlagBackend, FlagRef
from agent.config import Config, Flag
from agent.errors import BackendError
from agent.events import Event
from agent.executor import ExecutionResult, Executor, ManagedFlag
from agent.flag_state import FlagStatus, FlagWatch
from agent.keys import load_public
from agent.ledger import Ledger
from agent.logs import log_event

LOOK_EVERY = 1.0
"""Seconds between looks at the flags: a person's change is known to the monitor at most this much later."""

CHECK_EVERY = 10.0
"""Seconds between checks of what would stop a flip; an inability is announced within 30 s (promise P3)."""

REPEAT_EVERY = 30.0
"""Seconds after which an unchanged state is published again, so that its age tells whether an executor lives."""

_CHECK_BUDGET = 2.0
_AGAIN_AFTER = 0.5
_logger = logging.getLogger(__name__)


def make_backends(config: Config) -> dict[str, FlagBackend]:
    """Make every backend of the configuration, by name."""
    return {name: backends.make(settings) for name, settings in config.backends.items()}


def managed(flag: Flag) -> ManagedFlag:
    return ManagedFlag(flag.flag, flag.environment, flag.service, flag.backend, flag.safe)


class Flips:
    """Executes commands and watches the managed flags. Raises ConfigError where keys or the ledger cannot be used."""

    def __init__(self, config: Config, emit: Callable[[Event], Awaitable[None]]) -> None:
        self._flags = [managed(flag) for flag in config.flags]
        self._backends: Mapping[str, FlagBackend] = make_backends(config)
        self._watch = FlagWatch()
        self._published: dict[FlagRef, FlagStatus] = {}
        self._failing: dict[FlagRef, str] = {}
        self._managed = list(dict.fromkeys(FlagRef(f.flag, f.environment) for f in self._flags))
        self._retries: set[asyncio.Task[None]] = set()
        ledger = Ledger(config.state_dir / "ledger")
        self._prime_from(ledger)
        publics = [load_public(path) for path in config.public_keys]
        self._executor = Executor(
            self._flags,
            self._backends,
            {key.id: key for key in publics},
            ledger,
            watch=self._watch,
            emit=emit,
            now=time.time,
            cooldown_s=config.command.cooldown,
        )

    def _prime_from(self, ledger: Ledger) -> None:
        """Go on from the generations that the ledger has seen.

        If the flags topic is lost, generations would begin anew, and a command on the first of them would be taken for
        the one that was carried out then.
        """
        for entry in ledger.entries():
            for event in entry.events:
                version = event.data.get("flag_version")
                if isinstance(version, str):
                    command, target = entry.command, entry.command.target
                    variant = event.data.get("variant")
                    self._watch.prime(
                        FlagStatus(
                            flag=command.flag,
                            environment=command.environment,
                            version=version,
                            variant=variant,
                            safe=variant == target,
                            at=event.time,
                            changed_at=event.time,
                        )
                    )

    def prime(self, status: FlagStatus) -> None:
        """Go on from the state that an earlier process published."""
        self._watch.prime(status)

    async def execute(self, raw: bytes) -> list[FlagStatus]:
        """Carry out a command; returns the flags' states that are to be published.

        Where nothing could be decided it is tried again, beside the commands that follow, until it is or has expired: a
        backend that is away must not hold up the flags of another.
        """
        result = await self._execute(raw)
        if not result.final:
            task = asyncio.create_task(self._again(raw))
            self._retries.add(task)
            task.add_done_callback(self._retries.discard)
        return self._news(result.status)

    async def _again(self, raw: bytes) -> None:
        while True:
            await asyncio.sleep(_AGAIN_AFTER)
            if (await self._execute(raw)).final:
                return

    async def _execute(self, raw: bytes) -> ExecutionResult:
        result = await self._executor.execute(raw)
        log_event(_logger, "command.result", outcome=result.outcome, detail=result.detail, final=result.final)
        return result

    async def recover(self) -> None:
        """Finish what an earlier process left open. To be called before the first command."""
        await self._executor.recover()

    async def look(self) -> list[FlagStatus]:
        """Read every managed flag; returns the states that changed, or were not published for a while."""
        news = []
        for ref in self._managed:
            try:
                news += self._news(await self._executor.look(ref.flag, ref.environment))
                self._failing.pop(ref, None)
            except BackendError as error:
                self._failing[ref] = str(error)
        await self._executor.tell_pending()
        return news

    async def check(self) -> list[str]:
        """What would stop a flip now, one sentence each; empty when every flag could be made safe."""
        found = []
        for name, backend in self._backends.items():
            wanted = [(FlagRef(f.flag, f.environment), f.safe) for f in self._flags if f.backend == name]
            try:
                health = await backend.health(wanted, deadline=time.monotonic() + _CHECK_BUDGET)
                found += [f"backend {name}: {problem}" for problem in health.problems]
            except BackendError as error:
                found.append(f"backend {name}: {error}")
        return found

    def unreadable(self) -> list[str]:
        """Managed flags that could not be read when last looked at, and why."""
        return sorted(f"{ref.environment}/{ref.flag}: {error}" for ref, error in self._failing.items())

    def _news(self, status: FlagStatus | None) -> list[FlagStatus]:
        if status is None:
            return []
        ref = FlagRef(status.flag, status.environment)
        last = self._published.get(ref)
        if last is not None and last.version == status.version and status.at - last.at < REPEAT_EVERY:
            return []
        self._published[ref] = status
        return [status]

    async def close(self) -> None:
        for task in self._retries:
            task.cancel()
        self._executor.close()
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))
