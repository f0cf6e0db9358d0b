"""The ledger's blocking work in threads of its own, with a limit of time that only the disk can exceed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.errors import LedgerError

T = TypeVar("T")

_LOOKS = 10
"""Looks at the work within the limit. Seconds in which this process stood still pass between two looks, and so count
as one: a paused machine or a starved loop is no slow disk."""


class Disk:
    """Runs blocking work of the ledger in two threads of its own. Raises LedgerError after `limit_s` seconds.

    The limit is that of one piece of work; behind others in the queue it may wait for as long again.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="ledger")

    async def run(self, work: Callable[[], T]) -> T:
        begun: list[float] = []

        def timed() -> T:
            begun.append(time.monotonic())
            return work()

        future = self._pool.submit(timed)
        waiting = asyncio.wrap_future(future)
        # Its error is taken from the thread's own future, or comes when nobody waits any more.
        waiting.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        queued = worked = 0
        while True:
            # A cancelled caller leaves the work to its thread, as it must.
            await asyncio.wait({waiting}, timeout=self._limit_s / _LOOKS)
            if future.done():
                return future.result()
            queued, worked = (queued, worked + 1) if begun else (queued + 1, worked)
            if worked >= _LOOKS or queued >= 2 * _LOOKS:
                # What has not begun must not be done later, when nobody waits for it.
                future.cancel()
                raise LedgerError(f"the disk of the ledger did not answer within {self._limit_s:g} s")

    def close(self) -> None:
        self._pool.shutdown(wait=False)
