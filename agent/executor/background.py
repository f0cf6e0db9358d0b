"""Work that nobody waits for, such as publishing what was done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.errors import LedgerError
from agent.logs.setup import log_event

_logger = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds between repetitions."""

MOST = 1000
"""Tasks at the same time. If so many wait, the brokers are away, and the ledger keeps what must not be lost."""


class Background:
    """Runs work as tasks and logs their failures."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        if len(self._tasks) >= MOST:
            log_event(_logger, "background.full", level=logging.ERROR, most=MOST)
            return
        task = asyncio.create_task(_run(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log_event(_logger, "background.failed", level=logging.ERROR, error=repr(error))


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def each_second(work: Callable[[], Awaitable[None]]) -> None:
    """Repeat work every second until cancelled, also while the ledger's disk fails."""
    while True:
        try:
            await work()
        except LedgerError as error:
            log_event(_logger, "ledger.failed", level=logging.ERROR, error=str(error))
        await asyncio.sleep(_EVERY)
