"""Looking at the flags of one backend: at its own pace, and at once where it tells of a change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from agent.backends.contract import FlagBackend, FlagRef, Follows
from agent.errors import BackendError
from agent.executor.unforeseen import shown
from agent.logs.setup import log_event
from agent.state.flags import FlagStatus

_FOLLOW_AGAIN = (1.0, 60.0)
"""Seconds until a backend is followed again after that failed: at first, and at most, doubling between."""

_logger = logging.getLogger(__name__)


class FlagPoller:
    """Reads the flags `refs` of a backend by `read(flag, environment)`; `failing` says which could not be, and why."""

    def __init__(
        self,
        name: str,
        backend: FlagBackend,
        refs: Sequence[FlagRef],
        read: Callable[[str, str], Awaitable[FlagStatus]],
    ) -> None:
        self._name = name
        self._backend = backend
        self._refs = list(refs)
        self._read = read
        self._marked: set[FlagRef] = set()
        self._woken = asyncio.Event()
        self.failing: dict[FlagRef, str] = {}

    async def run(self, seen: Callable[[FlagStatus], Awaitable[None]]) -> None:
        """Hand to `seen` what is read, until cancelled: all flags every `look_every`, and those that were told of as
        soon as they are. What `seen` raises is this flag's problem.
        """
        async with asyncio.TaskGroup() as group:
            if isinstance(self._backend, Follows):
                group.create_task(self._follow(self._backend))
            group.create_task(self._rounds(seen))

    async def _rounds(self, seen: Callable[[FlagStatus], Awaitable[None]]) -> None:
        every, due = self._backend.capabilities.look_every, time.monotonic()
        while True:
            whole = time.monotonic() >= due
            if whole:
                due = time.monotonic() + every
            # What is told of from here on is looked at once more: this read may be too early for it.
            refs, self._marked = self._refs if whole else list(self._marked), set()
            self._woken.clear()
            # A few that each take the next: a task a flag would all be ready at once, and a flip behind them.
            left = iter(refs)
            await asyncio.gather(
                *(self._read_each(left, seen) for _ in range(min(len(refs), self._backend.capabilities.looks_at_once)))
            )
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _read_each(self, refs: Iterator[FlagRef], seen: Callable[[FlagStatus], Awaitable[None]]) -> None:
        for ref in refs:
            try:
                await seen(await self._read(ref.flag, ref.environment))
            except BackendError as error:
                self.failing[ref] = str(error)
                continue
            except Exception as error:
                # Not to be, and no reason to stop looking at the other flags: it is this backend's problem.
                if ref not in self.failing:
                    log_event(_logger, "look.failed", level=logging.ERROR, backend=self._name, error=shown(error))
                self.failing[ref] = f"an error of flipback in backend {self._name}: {shown(error)}"[:500]
                continue
            self.failing.pop(ref, None)

    async def _follow(self, backend: Follows) -> None:
        """Follow, and again where that ends: it only makes looks earlier, so its failure is no failure of the role."""
        pause, longest = _FOLLOW_AGAIN
        while True:
            begun = time.monotonic()
            try:
                await backend.follow(self._refs, self._mark)
                problem = "it ended by itself"
            except Exception as error:
                problem = repr(error)
            if time.monotonic() - begun > longest:
                pause = _FOLLOW_AGAIN[0]
            log_event(_logger, "follow.failed", level=logging.ERROR, backend=self._name, error=problem, again_in=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _mark(self, ref: FlagRef) -> None:
        self._marked.add(ref)
        self._woken.set()
