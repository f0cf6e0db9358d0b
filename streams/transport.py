"""Every change flipback makes to Faust and aiokafka, and nothing else.

Upstream versions: faust-streaming 0.15.3, aiokafka 0.14.0. tests/unit/test_transport_contract.py fails when a private
name used here is gone or behaves otherwise. What is changed, and why:

1. A fetched slice of a telemetry partition is one event. Upstream handles each record as an event of its own: four
   tasks and three loop turns (faust/transport/consumer.py:1220, mode/services.py:758), 10-14 thousand records/s.
2. The slice is unpacked a Kafka batch at a time, without `ConsumerRecord` objects (aiokafka/consumer/fetcher.py:218):
   0.3 instead of 1.3 microseconds a record.
3. Committed offsets of telemetry come from stage 1, which knows up to where its open seconds are acknowledged. Faust
   would commit what its agent has seen. Its gap list also counts the delivered message itself as a gap
   (faust/transport/consumer.py:1157-1168 and :1215), which makes batched commits crawl.
4. Where reading starts: partials are re-read from a time in the past on every assignment (state is the log), telemetry
   without a committed offset starts in the recent past. Upstream only knows committed, earliest and latest
   (faust/transport/drivers/aiokafka.py, `_seek_to_committed`).
5. When a fetch was answered is noted per partition together with the high watermark, never later than the request can
   have been answered: a process that was stopped for a while must not take an old answer for a fresh one.
6. A fetch waits 50 ms at the broker instead of 1.5 s (faust/transport/drivers/aiokafka.py:615), because the watermark
   of a quiet partition moves with the answers; and for as many bytes as a role wants at once, where upstream is
   answered for each record.
7. The table manager starts without its fixed one-second sleep (faust/tables/manager.py:140); flipback has no tables.
8. When any broker answered the consumer is noted: aiokafka keeps trying in silence, and looks alive meanwhile.
9. A partition that was left out while an agent's buffer was full is read as soon as there is room. Faust makes it
   active again (faust/transport/consumer.py:554), but does not tell the read that waits for the others, for up to a
   second (:1195): of 69 seconds of 8 partitions one to five were judged a second late.

Delete (1)-(3) when Faust delivers batches, (5) when aiokafka exposes the request's time, (9) when Faust tells the read.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import faust
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP, ConsumerMessage

from streams.slices import Slice, Source

FETCH_WAIT_MS = 50
MAX_RECORDS_PER_EVENT = 2000
"""Larger events were slower (notes: 8,000 records gave 245k/s where 2,000 gave 407k/s): they fall out of cache."""


class Answer(NamedTuple):
    """The last fetch answer for a partition: Unix seconds and the high watermark it carried."""

    at: float
    highwater: int


class Fetched(NamedTuple):
    """Records of one Kafka batch with the reading position before and after it, and the seek it belongs to."""

    values: list[bytes | None]
    offsets: list[int]
    timestamps: list[int]
    content_types: dict[int, bytes]
    before: int
    after: int
    epoch: int


_faust_logger = logging.getLogger("faust.flipback")
"""Faust names a service's logger after its module; what it says of its own start must not pass for flipback's."""


@dataclass(slots=True)
class Delivery:
    """A slice as the agent receives it; `before`, `after` are reading positions, `epoch` numbers the seeks."""

    slice: Slice
    before: int
    after: int
    epoch: int


@dataclass(slots=True)
class Position:
    """What the consumer thread knows about a telemetry partition. Single writes, so safe to read from elsewhere.

    Reading began at `start`, by the seek numbered `epoch`; records up to `delivered` were handed on, and `read` is
    further where only control batches follow.
    """

    start: int = 0
    epoch: int = 0
    answer: Answer | None = None
    delivered: int = 0
    read: int = 0


@dataclass(slots=True)
class Reading:
    """How the topics of one Faust app are read.

    `batched` topics are delivered as slices; `lookback` gives, for a topic, how many seconds back reading starts when
    there is no committed offset. For topics in `replayed` committed offsets are ignored: `since` is asked for the Unix
    time from which each partition is read, None for its beginning. `committable` answers which
    offset of a batched partition may be committed, None for none. A broker keeps an answer back until it holds `gather`
    bytes, for `FETCH_WAIT_MS` at most. `on_start` is told the offsets at which reading
    starts, before the first record is delivered; `on_revoke` that every partition is given up.
    """

    batched: frozenset[str] = frozenset()
    replayed: frozenset[str] = frozenset()
    lookback: Mapping[str, float] = field(default_factory=dict)
    since: Callable[[list[Source]], Awaitable[Mapping[Source, float | None]]] | None = None
    committable: Callable[[Source], int | None] = lambda source: None
    on_start: Callable[[Mapping[Source, int]], Awaitable[None]] | None = None
    on_revoke: Callable[[], None] | None = None
    gather: int = 1
    positions: dict[Source, Position] = field(default_factory=dict)
    answered_at: float | None = None
    """Monotonic seconds of the last answer of any broker to the consumer; None before it has started."""


def _batches(records: PartitionRecords, position: Position) -> Iterator[Fetched]:
    """Unpack whole Kafka batches; the duties of `PartitionRecords._unpack_records` at read_uncommitted are kept."""
    batches = records._records
    while batches.has_next():
        batch = batches.next_batch()
        if records._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {records._tp}")
        if not batch.is_control_batch:
            before = records.next_fetch_offset
            # A fetch may answer with a batch that begins before the asked offset, when that lies inside the batch.
            rows = [row for row in batch if row.offset >= before]
            if rows:
                headers = {
                    index: value
                    for index, row in enumerate(rows)
                    if row.headers
                    for name, value in row.headers
                    if name.lower() == "content-type"
                }
                # The next offset of the batch counts offsets that compaction removed, so reading never sticks there.
                records.next_fetch_offset = batch.next_offset
                position.delivered = batch.next_offset
                yield Fetched(
                    [row.value for row in rows],
                    [row.offset for row in rows],
                    [row.timestamp for row in rows],
                    headers,
                    before,
                    batch.next_offset,
                    position.epoch,
                )
        records.next_fetch_offset = position.read = batch.next_offset


class SliceFetcher(Fetcher):  # type: ignore[misc]
    """aiokafka's fetcher with batch-wise unpacking of telemetry and honest answer times."""

    reading: Reading

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        sent = time.time()
        woke: bool = await super()._proc_fetch_request(assignment, node_id, request)
        latest = sent + FETCH_WAIT_MS / 1000 + 0.25
        for topic, partitions in request.topics:
            if topic not in self.reading.batched or not assignment.active:
                continue
            for partition, _, _ in partitions:
                tp = TP(topic, partition)
                state = assignment.state_value(tp)
                position = self.reading.positions.setdefault(Source(topic, partition), Position())
                if state is not None and state.highwater is not None and state.timestamp / 1000 >= sent - 0.001:
                    position.answer = Answer(min(state.timestamp / 1000, latest), state.highwater)
                result = self._records.get(tp)
                if isinstance(result, FetchResult) and result.has_more():
                    records = result._partition_records
                    if not getattr(records, "by_batch", False):
                        records.by_batch = True
                        records._records_iterator = _batches(records, position)
        return woke


class AnsweredClient(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client that notes when a broker answered: fetches, heartbeats, commits."""

    reading: Reading

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        response = await super().send(node_id, request, **options)
        self.reading.answered_at = time.monotonic()
        return response


class SliceScheduler(DefaultSchedulingStrategy):
    """Joins the Kafka batches of one fetch into events of at most `MAX_RECORDS_PER_EVENT` records."""

    @classmethod
    def map_from_records(cls, records: Mapping[TP, list[Any]]) -> Any:
        return super().map_from_records({tp: list(_join(tp, fetched)) for tp, fetched in records.items()})


def _join(tp: TP, fetched: list[Any]) -> Iterator[Any]:
    if not fetched or not isinstance(fetched[0], Fetched):
        yield from fetched
        return
    part: list[Fetched] = []
    size = 0
    for batch in fetched:
        if part and size + len(batch.values) > MAX_RECORDS_PER_EVENT:
            yield _delivery(tp, part)
            part, size = [], 0
        part.append(batch)
        size += len(batch.values)
    if part:
        yield _delivery(tp, part)


def _delivery(tp: TP, part: list[Fetched]) -> Delivery:
    chain = itertools.chain.from_iterable
    content_types: dict[int, bytes] = {}
    size = 0
    for batch in part:
        content_types.update({size + index: value for index, value in batch.content_types.items()})
        size += len(batch.values)
    whole = Slice(
        Source(tp.topic, tp.partition),
        list(chain(batch.values for batch in part)),
        list(chain(batch.offsets for batch in part)),
        list(chain(batch.timestamps for batch in part)),
        content_types,
    )
    return Delivery(whole, part[0].before, part[-1].after, part[0].epoch)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with a start position of our choice."""

    logger = _faust_logger

    @property
    def reading(self) -> Reading:
        reading: Reading = self.consumer.app.reading  # type: ignore[attr-defined]
        return reading

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_min_bytes = self.reading.gather
        return consumer

    def look_again(self) -> None:
        """Have a read that waits for records look at those that were fetched before; from any thread."""
        # At the end the agents go on emptying their buffers when this thread has gone.
        with contextlib.suppress(RuntimeError):
            self.thread_loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        fetcher = self._ensure_consumer()._fetcher
        for waiter in list(fetcher._fetch_waiters):
            fetcher._notify(waiter)

    async def on_start(self) -> None:
        await super().on_start()
        consumer = self._ensure_consumer()
        client = consumer._client
        client.__class__ = AnsweredClient
        client.reading = self.reading
        # The start asks the brokers for their metadata, and fails without an answer.
        self.reading.answered_at = time.monotonic()
        fetcher = consumer._fetcher
        fetcher.__class__ = SliceFetcher
        fetcher.reading = self.reading

    async def seek_to_committed(self) -> Mapping[TP, int]:
        offsets: Mapping[TP, int] = await self.call_thread(self._seek_to_start)
        return offsets

    async def _seek_to_start(self) -> Mapping[TP, int]:
        """Seek each assigned partition to its committed offset or into the recent past; see `Reading`."""
        consumer, reading = self._ensure_consumer(), self.reading
        offsets: dict[TP, int] = {}
        past: dict[TP, int] = {}
        now = time.time()
        assigned = [TP(tp.topic, tp.partition) for tp in consumer.assignment()]
        replayed = [Source(*tp) for tp in assigned if tp.topic in reading.replayed]
        since = await reading.since(replayed) if reading.since is not None and replayed else {}
        for tp in assigned:
            if tp.topic in reading.replayed:
                past[tp] = int((since.get(Source(*tp)) or 0) * 1000)
                continue
            committed = await consumer.committed(tp)
            if committed is not None:
                offsets[tp] = committed
            else:
                past[tp] = int((now - reading.lookback.get(tp.topic, now)) * 1000)
        if past:
            found = await consumer.offsets_for_times(past)
            missing = [tp for tp in past if found.get(tp) is None]
            ends = await consumer.end_offsets(missing) if missing else {}
            offsets.update({tp: found[tp].offset if found.get(tp) is not None else ends[tp] for tp in past})
        for tp, offset in offsets.items():
            if tp in consumer.assignment():
                consumer.seek(tp, offset)
                if tp.topic in reading.batched:
                    # No await between seek and epoch: a slice unpacked before the seek keeps the old number.
                    position = reading.positions.setdefault(Source(*tp), Position())
                    position.start = position.delivered = position.read = offset
                    position.epoch += 1
                    position.answer = None
        return offsets


class Consumer(driver.Consumer):
    """Faust's consumer with slices as messages and stage 1's word on what may be committed."""

    logger = _faust_logger

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        offsets = await self._thread.seek_to_committed()
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        if reading.on_start is not None:
            await reading.on_start({Source(tp.topic, tp.partition): offset for tp, offset in offsets.items()})
        return offsets

    def on_buffer_drop(self, tp: TP) -> None:
        was_full = tp in self._buffered_partitions
        super().on_buffer_drop(tp)
        if was_full:
            cast(_ConsumerThread, self._thread).look_again()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        if reading.on_revoke is not None:
            reading.on_revoke()
        await super().on_partitions_revoked(revoked)

    def _to_message(self, tp: TP, record: Any) -> Any:
        if not isinstance(record, Delivery):
            return super()._to_message(tp, record)
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.slice.offsets[-1],
            record.slice.timestamps[-1] / 1000,
            0,
            None,
            None,
            cast(Any, record),
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self.app.reading.batched:  # type: ignore[attr-defined]
            await super()._add_gap(tp, offset_from, offset_to - 1)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        tps = (tp for tp in self.assignment() if tp.topic in reading.batched)
        batched = (tp for tp in tps if topics is None or tp in topics or tp.topic in topics)
        plain = super()._filter_tps_with_pending_acks(topics)
        return itertools.chain(batched, (tp for tp in plain if tp.topic not in reading.batched))

    def _new_offset(self, tp: TP) -> int | None:
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        if tp.topic not in reading.batched:
            return super()._new_offset(tp)
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return reading.committable(Source(tp.topic, tp.partition))


class Transport(driver.Transport):
    """Faust's aiokafka transport with the consumer above."""

    Consumer = Consumer


class QuickTableManager(TableManager):
    """Starts at once: there is no table to wait for."""

    logger = _faust_logger

    async def on_start(self) -> None:
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class App(faust.App):
    """A Faust app whose topics are read as `reading` says."""

    logger = _faust_logger

    def __init__(self, id: str, *, reading: Reading, **settings: Any) -> None:
        self.reading = reading
        super().__init__(id, ConsumerScheduler=SliceScheduler, TableManager=QuickTableManager, **settings)

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self, loop=self.loop)
