"""Work that lasts as long as the process, such as watching topics: where it fails it begins anew, and a person hears.

No part of it may end what judges and turns flags back, and none may end unheard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.heartbeats.heartbeat import Obstacle
from agent.logs.setup import log_event

AGAIN_AFTER = (1.0, 8.0)
"""Seconds until work that failed begins anew: at first, and at most, doubling between."""
SAID_AFTER = 15.0
"""Seconds over which work has failed again and again after which it is announced (docs/promises.md, P3: 30 s)."""
WELL_AFTER = 60.0
"""Seconds without another failure after which it is well again. A request to a broker that does not answer fails after
40, and the next begins up to 8 later: less would take each for the first."""

_MOST = 500
_TODO = "restart this process; if that does not help, report the error in the log"

_logger = logging.getLogger(__name__)


class LastingWork:
    """One piece of work. `failures` counts them all; times are in seconds of `monotonic`."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], monotonic: Callable[[], float]) -> None:
        self.name = name
        self.failures = 0
        self._work = work
        self._monotonic = monotonic
        self._since = self._last = -WELL_AFTER
        self._error = ""

    async def run(self) -> None:
        """Do it until cancelled."""
        pause, longest = AGAIN_AFTER
        while True:
            begun = self._monotonic()
            try:
                await self._work()
                self._failed("it ended by itself")
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # What it waited for was cancelled, and nobody has asked the work to end.
                self._failed("what it waited for was cancelled")
            except Exception as error:
                self._failed(repr(error)[:_MOST])
            if self._monotonic() - begun >= WELL_AFTER:
                pause = AGAIN_AFTER[0]
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def problem(self) -> str | None:
        """What is to be said of it; None where it does not fail, or has not done so for long."""
        if self._monotonic() - self._last >= WELL_AFTER or self._last - self._since < SAID_AFTER:
            return None
        return f"{self.name} fails again and again: {self._error}"

    def _failed(self, error: str) -> None:
        now = self._monotonic()
        if now - self._last >= WELL_AFTER:
            self._since = now
        self._last, self._error = now, error
        self.failures += 1
        fields = {"work": self.name, "error": error, "failures": self.failures}
        log_event(_logger, "work.failed", level=logging.ERROR, **fields)


class WorkSet:
    """All of a process. `announce` publishes an event and does not wait."""

    def __init__(self, announce: Callable[[Event], object], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._announce = announce
        self._monotonic = monotonic
        self._works: list[LastingWork] = []
        self._announced: set[str] = set()

    def begin(self, name: str, work: Callable[[], Awaitable[None]], stack: contextlib.AsyncExitStack) -> None:
        """Do `work` until `stack` is left."""
        made = LastingWork(name, work, self._monotonic)
        self._works.append(made)
        stack.push_async_callback(_cancel, asyncio.create_task(made.run(), name=name))

    def problems(self) -> list[str]:
        """What fails again and again, one sentence each."""
        return [problem for work in self._works if (problem := work.problem()) is not None]

    def obstacles(self) -> list[Obstacle]:
        """The same for ARMED or NOT ARMED: what is done here is not known to be done."""
        return [Obstacle(what="work", why=problem, do=_TODO) for problem in self.problems()]

    def look(self) -> None:
        """Announce what has begun to fail again and again, and what no longer does."""
        for work in self._works:
            problem = work.problem()
            if (problem is not None) == (work.name in self._announced):
                continue
            if problem is not None:
                self._announced.add(work.name)
            else:
                self._announced.remove(work.name)
            self._announce(_inability(work.name, problem))


def _inability(name: str, problem: str | None) -> Event:
    reason = f"{name} no longer fails" if problem is None else f"{problem}; {_TODO}"
    return events.inability(name, "failing", reason, begun=problem is not None, at=time.time())


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
