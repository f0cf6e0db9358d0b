"""Writes records whose writer must not wait: audit events, health, checkpoints and compacted tables.

Each topic has a lane, in which its records wait in order until a broker acknowledges them. A topic that takes no
records delays its own lane only. If a lane is full, the oldest of its least important records is dropped and counted.
Records that must not be lost are stored elsewhere too: the ledger keeps the steps of a flip, and a command can be made
again from its incident. See docs/promises.md, P6.
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
"""Maximum size of a lane: room for 10,000 events, or for a quarter of an hour of health of 100 scopes in 4 shards."""

AT_ONCE = 64
"""How many records of a lane are sent concurrently; an aiokafka producer keeps the order of a partition."""

_OVERHEAD = 200
_RETRY_FIRST = 0.1
_RETRY_MOST = 2.0
_AFTER_WITHIN = 2.0
_ROOM_WITHIN = 1.0
_REFUSALS = 3

_logger = logging.getLogger(__name__)


class OutboxError(Exception):
    """This process has dropped the record and will not write it."""


class Record(NamedTuple):
    """A record to write; if `partition` is None, the key decides it."""

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Stall(NamedTuple):
    """A lane in which `waiting` records wait and none was acknowledged for `seconds`."""

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
    """The records of one topic that are not acknowledged.

    `since` is the monotonic time of the last acknowledgement, or of the first record after the lane was empty. `newest`
    has the waiting record of each key if only the newest one is to be written.
    """

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
        """Remove and return up to `most` records, the oldest first."""
        taken: list[_Item] = []
        while self.waiting and len(taken) < most:
            taken.append(self.pop(min(self.waiting, key=lambda i: next(iter(self.waiting[i])))))
        return taken


class Outbox:
    """Writes the records given to `put` by `send`, which returns when a broker has acknowledged the record.

    For a topic in `compacted` only the newest record of a key waits. Not thread-safe. `monotonic` returns seconds that
    never go back.
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

        The future is done when the record is acknowledged; it fails with OutboxError if the record is dropped. If the
        lane is full, records of lower `importance` are dropped first. The record is sent when the futures `after` are
        done, or two seconds later.
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
        # Retrieve the exception, so that asyncio logs nothing if the caller ignores the future.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        lane.put(_Item(record, importance, next(self._numbers), after, done))
        self._make_room(lane)
        if lane.task is None:
            lane.since = self._monotonic()
            lane.task = asyncio.create_task(self._write(lane), name=f"writing {record.topic}")
        return done

    async def room(self, topic: str) -> None:
        """Wait while the topic's lane is more than half full and its records are being acknowledged.

        A monitor that evaluates a backlog writes thousands of records a second. A topic that has acknowledged nothing
        for a second delays nobody.
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
        """The topics whose records wait and of which none was acknowledged for `after` seconds."""
        now = self._monotonic()
        return {
            topic: Stall(now - lane.since, len(lane), lane.error)
            for topic, lane in self._lanes.items()
            if len(lane) and now - lane.since >= after
        }

    def dropped(self, topic: str) -> int:
        """How many records of a topic have been dropped."""
        lane = self._lanes.get(topic)
        return 0 if lane is None else lane.dropped

    async def flush(self, within: float) -> None:
        """Wait until all records are written, for at most `within` seconds."""
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
                # After an error, send one record at a time: each sending requests the topic's metadata.
                items = lane.next(1 if lane.error else AT_ONCE)
                lane.under_way = len(items)
                open_ = {future for item in items for future in item.after if not future.done()}
                if open_:
                    await asyncio.wait(open_, timeout=_AFTER_WITHIN)
                results = await asyncio.gather(*(self._send(item.record) for item in items), return_exceptions=True)
                lane.under_way = 0
                # A cancellation counts as a failure: a client that closes cancels the records it has not sent.
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
        """Queue a failed record again. Drop it if it was rejected three times while other records were written."""
        topic = item.record.topic
        if not lane.error:
            _logger.warning("outbox.failed", extra={"fields": {"topic": topic, "error": repr(error)}})
        lane.error = lane.error or repr(error)
        if lane.newest_only and item.record.key in lane.newest:
            # A newer record of the same key replaces this one.
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
        # Last in the lane: the broker may reject only this record, for example because it is too large.
        item.number = next(self._numbers)
        lane.put(item)
        self._make_room(lane)


def _may_be_taken_later(error: BaseException) -> bool:
    """Whether the error is of the topic or the broker and may pass; False for an error of the record itself."""
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
