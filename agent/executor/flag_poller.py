"""Reads the flags of one backend: at the backend's own interval, and at once if it reports a change."""

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
"""Seconds until a failed subscription to a backend is renewed: at first and at most, doubling between."""

_logger = logging.getLogger(__name__)


class FlagPoller:
    """Reads the flags `refs` of a backend by `read(flag, environment)`.

    `failing` has the flags that could not be read last time, and why.
    """

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
        """Call `seen` with each state that is read, until cancelled.

        All flags are read every `read_every`, and a flag that the backend reports as changed at once. An exception of
        `seen` counts as a failure of that flag.
        """
        async with asyncio.TaskGroup() as group:
            if isinstance(self._backend, Follows):
                group.create_task(self._follow(self._backend))
            group.create_task(self._rounds(seen))

    async def _rounds(self, seen: Callable[[FlagStatus], Awaitable[None]]) -> None:
        every, due = self._backend.capabilities.read_every, time.monotonic()
        while True:
            whole = time.monotonic() >= due
            if whole:
                due = time.monotonic() + every
            # A flag that is reported from here on is read again: this read may be too early to show the change.
            refs, self._marked = self._refs if whole else list(self._marked), set()
            self._woken.clear()
            # Bounded workers: one task per flag would fill the loop's ready queue and delay a flip.
            left = iter(refs)
            await asyncio.gather(
                *(self._read_each(left, seen) for _ in range(min(len(refs), self._backend.capabilities.reads_at_once)))
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
                # A defect, but no reason to stop reading the other flags: it counts as a problem of this backend.
                if ref not in self.failing:
                    log_event(_logger, "look.failed", level=logging.ERROR, backend=self._name, error=shown(error))
                self.failing[ref] = f"an error of flipback in backend {self._name}: {shown(error)}"[:500]
                continue
            self.failing.pop(ref, None)

    async def _follow(self, backend: Follows) -> None:
        """Subscribe to changes, again whenever that ends. It only makes reads earlier: its failure fails no role."""
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
