"""Work that lasts as long as the process, such as watching topics: if it fails, it is started again and reported.

A failure of such work must not end the roles, and must not go unnoticed.
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
"""Seconds before failed work is started again: the first pause and the longest; each pause is twice the last."""
ANNOUNCED_AFTER = 15.0
"""Seconds of repeated failures after which they are announced; docs/promises.md#p3-an-inability-is-announced allows 30.
"""
WELL_AFTER = 60.0
"""Seconds without a failure after which the work counts as well again.

A request to a silent broker fails after 40 s, and the next one begins up to 8 s later: with fewer seconds, each failure
would count as the first.
"""

_MOST = 500
_TODO = "restart this process; if that does not help, report the error in the log"

_logger = logging.getLogger(__name__)


class LastingWork:
    """One piece of work. `failures` counts all failures; times are in seconds of `monotonic`."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], monotonic: Callable[[], float]) -> None:
        self.name = name
        self.failures = 0
        self._work = work
        self._monotonic = monotonic
        self._since = self._last = -WELL_AFTER
        self._error = ""

    async def run(self) -> None:
        """Run the work, again and again, until cancelled."""
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
                # Something that the work awaited was cancelled; the work itself was not.
                self._failed("what it waited for was cancelled")
            except Exception as error:
                self._failed(repr(error)[:_MOST])
            if self._monotonic() - begun >= WELL_AFTER:
                pause = AGAIN_AFTER[0]
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def problem(self) -> str | None:
        """A sentence if the work has failed repeatedly for `ANNOUNCED_AFTER` seconds, else None."""
        if self._monotonic() - self._last >= WELL_AFTER or self._last - self._since < ANNOUNCED_AFTER:
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
    """All lasting work of a process. `announce` publishes an event and does not wait."""

    def __init__(self, announce: Callable[[Event], object], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._announce = announce
        self._monotonic = monotonic
        self._works: list[LastingWork] = []
        self._announced: set[str] = set()

    def begin(self, name: str, work: Callable[[], Awaitable[None]], stack: contextlib.AsyncExitStack) -> None:
        """Start `work`; it is cancelled when `stack` is left."""
        made = LastingWork(name, work, self._monotonic)
        self._works.append(made)
        stack.push_async_callback(_cancel, asyncio.create_task(made.run(), name=name))

    def problems(self) -> list[str]:
        """A sentence for each piece of work that fails repeatedly."""
        return [problem for work in self._works if (problem := work.problem()) is not None]

    def obstacles(self) -> list[Obstacle]:
        """The same as obstacles for ARMED or NOT ARMED: work that fails may leave a flip undone."""
        return [Obstacle(what="work", why=problem, do=_TODO) for problem in self.problems()]

    def check(self) -> None:
        """Announce which work has begun to fail repeatedly, and which no longer does."""
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
