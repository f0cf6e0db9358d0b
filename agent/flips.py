"""The executor with what it works on: backends made from the configuration, the ledger, and the flags' states."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from agent.backends.contract import FlagBackend, FlagRef
from agent.backends.flagd_file import FlagdFile
from agent.config import Config, Flag
from agent.errors import BackendError
from agent.events import Event
from agent.executor import Executor, ManagedFlag
from agent.flag_state import FlagStatus, FlagWatch
from agent.keys import load_public
from agent.ledger import Ledger
from agent.logs import log_event

LOOK_EVERY = 1.0
"""Seconds between looks at the flags: a person's change is known to the monitor at most this much later."""

REPEAT_EVERY = 30.0
"""Seconds after which an unchanged state is published again, so that its age tells whether an executor lives."""

_READ_BUDGET = 1.0
_AGAIN_AFTER = 0.5
_logger = logging.getLogger(__name__)


def make_backends(config: Config) -> dict[str, FlagBackend]:
    """Make every backend of the configuration, by name."""
    return {name: FlagdFile(backend.path) for name, backend in config.backends.items()}


def managed(flag: Flag) -> ManagedFlag:
    return ManagedFlag(flag.flag, flag.environment, flag.service, flag.backend, flag.safe)


class Flips:
    """Executes commands and watches the managed flags. Raises ConfigError where keys or the ledger cannot be used."""

    def __init__(self, config: Config, emit: Callable[[Event], Awaitable[None]]) -> None:
        self._flags = [managed(flag) for flag in config.flags]
        self._backends: Mapping[str, FlagBackend] = make_backends(config)
        self._watch = FlagWatch()
        self._published: dict[FlagRef, FlagStatus] = {}
        self._failing: set[FlagRef] = set()
        self._recovered = False
        publics = [load_public(path) for path in config.public_keys]
        self._executor = Executor(
            self._flags,
            self._backends,
            {key.id: key for key in publics},
            Ledger(config.state_dir / "ledger"),
            watch=self._watch,
            emit=emit,
            now=time.time,
            cooldown_s=config.command.cooldown,
        )

    def prime(self, status: FlagStatus) -> None:
        """Go on from the state that an earlier process published."""
        self._watch.prime(status)

    async def execute(self, raw: bytes) -> list[FlagStatus]:
        """Carry out a command; where nothing could be decided, again until it can or the command has expired.

        Returns the flags' states that are to be published.
        """
        await self.recover()
        while True:
            result = await self._executor.execute(raw)
            log_event(_logger, "command.result", outcome=result.outcome, detail=result.detail)
            if result.final:
                return self._news(result.status)
            await asyncio.sleep(_AGAIN_AFTER)

    async def recover(self) -> None:
        """Finish, once, what an earlier process left open."""
        if not self._recovered:
            self._recovered = True
            await self._executor.recover()

    async def look(self) -> list[FlagStatus]:
        """Read every managed flag; returns the states that changed, or were not published for a while."""
        news = []
        for flag in {FlagRef(f.flag, f.environment): f for f in self._flags}.values():
            ref = FlagRef(flag.flag, flag.environment)
            try:
                state = await self._backends[flag.backend].read(ref, deadline=time.monotonic() + _READ_BUDGET)
            except BackendError as error:
                if ref not in self._failing:
                    log_event(_logger, "flag.unreadable", level=logging.ERROR, flag=flag.flag, error=str(error))
                self._failing.add(ref)
                continue
            self._failing.discard(ref)
            news += self._news(self._watch.observe(ref, state, safe=flag.safe, at=time.time()))
        return news

    def unreadable(self) -> list[str]:
        """Managed flags that could not be read when last looked at."""
        return sorted(f"{ref.environment}/{ref.flag}" for ref in self._failing)

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
        self._executor.close()
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))
