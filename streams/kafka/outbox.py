"""Records that nobody waits for: audit events, health, checkpoints and compacted tables (docs/promises.md, P6).

A record waits in the lane of its topic, in order, until a broker acknowledges it. A topic that takes no records holds
up its own lane only. Where a lane is full, the oldest of its least important records is dropped and counted. What must
not be lost is kept elsewhere too: the ledger keeps steps of flips, a command's id repeats that of its incident.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

MOST_BYTES = 16 << 20
"""Bytes that wait in a lane at most: 10,000 events, or health of 100 scopes for a quarter of an hour and 4 shards."""

AT_ONCE = 64
"""Records of a lane under way at the same time; an aiokafka producer keeps the order of a partition."""

_OVERHEAD = 200
_RETRY_FIRST = 0.1
_RETRY_MOST = 2.0
_AFTER_WITHIN = 2.0
_ROOM_WITHIN = 1.0
_REFUSALS = 3

_logger = logging.getLogger(__name__)


class OutboxError(Exception):
    """The record will not be written by this process."""


class Record(NamedTuple):
    """A record of Kafka; `partition` None leaves the choice to the key."""

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Stall(NamedTuple):
    """A lane in which nothing was acknowledged for `seconds`, although `waiting` records are there."""

    seconds: float
    waiting: int
    error: str


@dataclass(slots=True, eq=False)
class _Item:
    record: Record
    importance: int
    number: int
    after: Collection[asyncio.Future[None]]
    done: asyncio.Future[None]
    refusals: int = 0
    written_before: int = 0

    @property
    def size(self) -> int:
        return len(self.record.value) + len(self.record.key or b"") + _OVERHEAD


@dataclass(slots=True, eq=False)
class _Lane:
    """The records of one topic. `since` is when it last wrote a record, or began to wait, in monotonic seconds."""

    newest_only: bool
    waiting: dict[int, OrderedDict[int, _Item]] = field(default_factory=dict)
    newest: dict[bytes | None, _Item] = field(default_factory=dict)
    size: int = 0
    under_way: int = 0
    since: float = 0.0
    error: str = ""
    written: int = 0
    dropped: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return self.under_way + sum(map(len, self.waiting.values()))

    def put(self, item: _Item, *, first: bool = False) -> None:
        items = self.waiting.setdefault(item.importance, OrderedDict())
        items[item.number] = item
        if first:
            items.move_to_end(item.number, last=False)
        if self.newest_only:
            self.newest[item.record.key] = item
        self.size += item.size

    def pop(self, importance: int) -> _Item:
        _, item = self.waiting[importance].popitem(last=False)
        if not self.waiting[importance]:
            del self.waiting[importance]
        if self.newest.get(item.record.key) is item:
            del self.newest[item.record.key]
        self.size -= item.size
        return item

    def next(self, most: int) -> list[_Item]:
        """Up to `most` records in the order in which they came."""
        taken: list[_Item] = []
        while self.waiting and len(taken) < most:
            taken.append(self.pop(min(self.waiting, key=lambda i: next(iter(self.waiting[i])))))
        return taken


class Outbox:
    """Writes what `put` is given by `send`, which returns when a broker has acknowledged the record.

    Of a topic in `compacted` only the newest record of a key waits. For one event loop's thread. `monotonic` gives
    seconds that never go back.
    """

    def __init__(
        self,
        send: Callable[[Record], Awaitable[object]],
        compacted: Collection[str] = (),
        *,
        most_bytes: int = MOST_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._compacted = frozenset(compacted)
        self._most_bytes = most_bytes
        self._monotonic = monotonic
        self._numbers = count()
        self._lanes: dict[str, _Lane] = {}

    def put(
        self, record: Record, importance: int = 0, after: Collection[asyncio.Future[None]] = ()
    ) -> asyncio.Future[None]:
        """Queue a record and return at once.

        The future is done when the record is acknowledged; it fails with OutboxError where the record is dropped.
        Where a lane is full, records of a higher `importance` stay longer. The record is sent when what it comes
        `after` is done, or two seconds later.
        """
        lane = self._lanes.get(record.topic)
        if lane is None:
            lane = self._lanes[record.topic] = _Lane(record.topic in self._compacted)
        known = lane.newest.get(record.key)
        if known is not None:
            lane.size += len(record.value) - len(known.record.value)
            known.record, known.after = record, after
            return known.done
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whoever does not look at the outcome need not.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        lane.put(_Item(record, importance, next(self._numbers), after, done))
        self._make_room(lane)
        if lane.task is None:
            lane.since = self._monotonic()
            lane.task = asyncio.create_task(self._write(lane), name=f"writing {record.topic}")
        return done

    async def room(self, topic: str) -> None:
        """Wait while the topic's lane is more than half full and its records are being written.

        A backlog that is judged at once writes thousands of records a second; a topic that takes none holds up nobody.
        """
        lane = self._lanes.get(topic)
        while lane is not None and lane.size > self._most_bytes / 2:
            left = lane.since + _ROOM_WITHIN - self._monotonic()
            if left <= 0:
                return
            lane.moved.clear()
            try:
                async with asyncio.timeout(left):
                    await lane.moved.wait()
            except TimeoutError:
                return

    def stalls(self, after: float) -> Mapping[str, Stall]:
        """The topics that have records waiting and took none for `after` seconds."""
        now = self._monotonic()
        return {
            topic: Stall(now - lane.since, len(lane), lane.error)
            for topic, lane in self._lanes.items()
            if len(lane) and now - lane.since >= after
        }

    def dropped(self, topic: str) -> int:
        """How many records of a topic were dropped so far."""
        lane = self._lanes.get(topic)
        return 0 if lane is None else lane.dropped

    async def flush(self, within: float) -> None:
        """Wait until all is written, for `within` seconds at most."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=within)

    async def close(self) -> None:
        """Stop writing."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _make_room(self, lane: _Lane) -> None:
        while lane.size > self._most_bytes and lane.waiting:
            self._drop(lane, lane.pop(min(lane.waiting)), "too many records wait")

    def _drop(self, lane: _Lane, item: _Item, why: str) -> None:
        lane.dropped += 1
        if not item.done.done():
            item.done.set_exception(OutboxError(f"a record of {item.record.topic} was dropped: {why}"))

    async def _write(self, lane: _Lane) -> None:
        delay = _RETRY_FIRST
        try:
            while lane.waiting:
                # One at a time until one is taken: each of them asks for the topic's metadata.
                items = lane.next(1 if lane.error else AT_ONCE)
                lane.under_way = len(items)
                open_ = {future for item in items for future in item.after if not future.done()}
                if open_:
                    await asyncio.wait(open_, timeout=_AFTER_WITHIN)
                results = await asyncio.gather(*(self._send(item.record) for item in items), return_exceptions=True)
                lane.under_way = 0
                # A client that ends cancels what it has not sent: that was not written either.
                failed = [(item, r) for item, r in zip(items, results, strict=True) if isinstance(r, BaseException)]
                if len(failed) < len(items):
                    lane.since, lane.error, delay = self._monotonic(), "", _RETRY_FIRST
                for item, result in zip(items, results, strict=True):
                    if not isinstance(result, BaseException):
                        lane.written += 1
                        if not item.done.done():
                            item.done.set_result(None)
                for item, error in reversed(failed):
                    self._failed(lane, item, error)
                lane.moved.set()
                if failed:
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _RETRY_MOST)
        finally:
            lane.task = None

    def _failed(self, lane: _Lane, item: _Item, error: BaseException) -> None:
        """Queue a record again that was not taken, unless the topic takes others but never this one."""
        topic = item.record.topic
        if not lane.error:
            _logger.warning("outbox.failed", extra={"fields": {"topic": topic, "error": repr(error)}})
        lane.error = lane.error or repr(error)
        if lane.newest_only and item.record.key in lane.newest:
            # A newer record of its key came meanwhile.
            newer = lane.newest[item.record.key]
            newer.done.add_done_callback(lambda future: _copy(future, item.done))
            return
        if _may_be_taken_later(error):
            lane.put(item, first=True)
            self._make_room(lane)
            return
        if item.refusals == 0:
            item.written_before = lane.written
        item.refusals += 1
        if item.refusals >= _REFUSALS and lane.written > item.written_before:
            self._drop(lane, item, repr(error))
            return
        # Behind the others, for whom it may be different: this one may be too large.
        item.number = next(self._numbers)
        lane.put(item)
        self._make_room(lane)


def _may_be_taken_later(error: BaseException) -> bool:
    """Is it the topic or the broker that does not take the record now, and not the record?"""
    cause = error.__cause__ if error.__cause__ is not None else error
    return bool(getattr(cause, "retriable", False))


def _copy(of: asyncio.Future[None], to: asyncio.Future[None]) -> None:
    if of.cancelled():
        to.cancel()
    elif to.done():
        return
    elif (error := of.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(None)
