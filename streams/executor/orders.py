"""Starts the commands of fetched slices, signed ones first and a few at a time, and knows which offset to commit.

Anyone with write access to the commands topic can write anything. A record without a valid signature costs a check and
no more, so that a flood of them does not delay a real command: 50,000 records took minutes one by one, as events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streams.kafka.reading import Delivery, Position
from streams.slices import Source

AT_ONCE = 8
"""Commands under way at the same time. Flags that fail together fire in the same second; one after the other, the last
would wait for the disk, the backend and the audit log of all others."""

_CHECKED_AT_ONCE = 50
"""Records that are checked before other tasks get their turn; to check a signature takes 0.1 ms."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Progress:
    """The records before `next` have been taken; the commands at the offsets `under_way` are not done."""

    next: int
    epoch: int
    under_way: set[int] = field(default_factory=set)


class Orders:
    """Passes the signed records of a slice to `execute`, in the order of the log, and then the others to `refuse`.

    `signed` says whether an accepted key has signed a record. `execute` is called for up to `AT_ONCE` commands before
    the first has returned; an exception of it is logged, and the command counts as done. `positions` are those of the
    reader.
    """

    def __init__(
        self,
        *,
        signed: Callable[[bytes], bool],
        execute: Callable[[bytes], Awaitable[None]],
        refuse: Callable[[Sequence[bytes]], None],
        positions: Mapping[Source, Position],
    ) -> None:
        self._signed = signed
        self._execute = execute
        self._refuse = refuse
        self._positions = positions
        self._progress: dict[Source, _Progress] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def assign(self, offsets: Mapping[Source, int]) -> None:
        """Start at the given offsets. Commands under way continue; if one is read again, the ledger has it."""
        self._progress = {
            source: _Progress(offset, self._positions[source].epoch) for source, offset in offsets.items()
        }

    def revoke(self) -> None:
        """Take no more slices until the next `assign`."""
        self._progress = {}

    def committable(self, source: Source) -> int | None:
        """The offset from which the next reader must start to read each command that is not done."""
        progress = self._progress.get(source)
        return None if progress is None else min(progress.under_way, default=progress.next)

    async def take(self, delivery: Delivery) -> None:
        """Start the commands of a slice; waits while too many are under way."""
        slice_ = delivery.slice
        progress = self._progress.get(slice_.source)
        if progress is None or delivery.epoch != progress.epoch:
            # The slice was fetched before a seek: its records come again, or another process reads them.
            return
        signed, unsigned = await self._parted([value or b"" for value in slice_.values])
        progress.under_way.update(slice_.offsets[index] for index in signed)
        progress.next = delivery.after
        for index in signed:
            await self._room.acquire()
            work = self._run(progress, slice_.offsets[index], slice_.values[index] or b"")
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._refuse(unsigned)

    def close(self) -> None:
        """Cancel the commands under way; the ledger has their steps."""
        for task in self._tasks:
            task.cancel()

    async def _parted(self, values: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
        """The indices of the signed values, and the other values."""
        signed, unsigned = [], []
        for index, value in enumerate(values):
            if self._signed(value):
                signed.append(index)
            else:
                unsigned.append(value)
            if index % _CHECKED_AT_ONCE == _CHECKED_AT_ONCE - 1:
                await asyncio.sleep(0)
        return signed, unsigned

    async def _run(self, progress: _Progress, offset: int, value: bytes) -> None:
        try:
            await self._execute(value)
        except Exception as error:
            _logger.exception("command.failed", extra={"fields": {"offset": offset, "error": repr(error)}})
        finally:
            progress.under_way.discard(offset)
            self._room.release()
