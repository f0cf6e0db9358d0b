"""Runs the ledger's blocking work in separate threads, with a time limit that only a slow disk exceeds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.errors import LedgerError

T = TypeVar("T")

_LOOKS = 10
"""Checks of the work within the limit. A pause of the whole process falls between two checks and so counts as one: a
paused machine or a starved loop is not a slow disk.
"""


class Disk:
    """Runs blocking work of the ledger in two threads. `limit_s` is the limit in seconds for each piece of work.

    Work that is queued behind other work may wait for as long again.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="ledger")

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`. Raises LedgerError if the disk takes longer than the limit."""
        begun: list[float] = []

        def timed() -> T:
            begun.append(time.monotonic())
            return work()

        future = self._pool.submit(timed)
        waiting = asyncio.wrap_future(future)
        # Consume the error: it is raised from the thread's own future, or comes after this call has returned.
        waiting.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        queued = worked = 0
        while True:
            # `wait` does not cancel the work with its caller: a thread cannot be interrupted.
            await asyncio.wait({waiting}, timeout=self._limit_s / _LOOKS)
            if future.done():
                return future.result()
            queued, worked = (queued, worked + 1) if begun else (queued + 1, worked)
            if worked >= _LOOKS or queued >= 2 * _LOOKS:
                # Work that has not begun must not run later: its caller has been told that it failed.
                future.cancel()
                raise LedgerError(f"the disk of the ledger did not answer within {self._limit_s:g} s")

    def close(self) -> None:
        self._pool.shutdown(wait=False)
