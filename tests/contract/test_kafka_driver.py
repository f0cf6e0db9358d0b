"""What streams/kafka/driver.py relies on in Faust and aiokafka: fails if a private name is missing or behaves
differently."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import struct
import time
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.errors import CorruptRecordException, RequestTimedOutError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from faust.app import App as FaustApp
from faust.tables import TableManager
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP, ConsumerMessage
from hypothesis import given
from hypothesis import strategies as st
from mode.threads import ServiceThread

from streams.kafka import driver as transport
from streams.kafka import fetcher
from streams.kafka.driver import SliceScheduler
from streams.kafka.fetcher import AnsweredClient, SliceFetcher
from streams.kafka.producer_client import PatientClient
from streams.kafka.reading import Fetched, Position, Reading
from streams.slices import Source

TELEMETRY = TP("requests", 3)
SOURCE = Source(*TELEMETRY)
T = 1_700_000_000

# Byte positions in Kafka's record batch, version 2. The checksum covers all that follows it, from the attributes on.
_LENGTH, _CRC, _ATTRIBUTES, _LAST_DELTA = 8, 17, 21, 23
_CONTROL = 0x20


class Batch(NamedTuple):
    """A compacted Kafka batch: `gaps[i]` offsets are missing before record i, and `tail` after the last."""

    gaps: tuple[int, ...]
    tail: int = 0
    gzip: bool = False
    control: bool = False
    content_type: bytes | None = None


def encoded(batches: Sequence[Batch], base: int) -> tuple[bytes, int]:
    """Return the batches as a broker sends them, and the offset after the last one."""
    whole = b""
    for batch in batches:
        builder = DefaultRecordBatchBuilder(2, 1 if batch.gzip else 0, 0, -1, -1, -1, 1 << 20)
        delta = -1
        for number, gap in enumerate(batch.gaps):
            delta += 1 + gap
            headers = [] if batch.content_type is None or number % 2 else [("Content-Type", batch.content_type)]
            value = None if number % 5 == 4 else b"v%d" % (base + delta)
            builder.append(delta, 1_700_000_000_000 + base + delta, None, value, headers)
        part = bytearray(builder.build())
        last = max(delta, 0) + batch.tail
        struct.pack_into(">q", part, 0, base)
        struct.pack_into(">i", part, _LAST_DELTA, last)
        if batch.control:
            part[_ATTRIBUTES + 1] |= _CONTROL
        struct.pack_into(">I", part, _CRC, calc_crc32c(part[_ATTRIBUTES:]))
        whole += bytes(part)
        base += last + 1
    return whole, base


def partition_records(raw: bytes, fetch_offset: int) -> PartitionRecords:
    return PartitionRecords(TELEMETRY, MemoryRecords(raw), [], fetch_offset, None, None, True, READ_UNCOMMITTED)


def unpacked(raw: bytes, fetch_offset: int) -> tuple[list[Fetched], PartitionRecords, Position]:
    records, position = partition_records(raw, fetch_offset), Position(start=fetch_offset, epoch=4)
    return list(fetcher._batches(records, position)), records, position


batches = st.builds(
    Batch,
    gaps=st.lists(st.sampled_from([0, 0, 0, 1, 7]), min_size=1, max_size=8).map(tuple),
    tail=st.sampled_from([0, 0, 3]),
    gzip=st.booleans(),
    control=st.sampled_from([False, False, True]),
    content_type=st.sampled_from([None, None, b"application/json"]),
)


@given(st.lists(batches, min_size=1, max_size=6), st.data())
def test_batches_hold_the_records_that_aiokafka_itself_unpacks(given_batches: list[Batch], data: st.DataObject) -> None:
    raw, end = encoded(given_batches, 100)
    fetch_offset = data.draw(st.integers(100, end - 1))
    upstream = partition_records(raw, fetch_offset)
    expected = [(r.offset, r.timestamp, r.value, dict(r.headers).get("Content-Type")) for r in upstream]

    fetched, records, position = unpacked(raw, fetch_offset)

    found = [
        (offset, timestamp, value, batch.content_types.get(index))
        for batch in fetched
        for index, (offset, timestamp, value) in enumerate(
            zip(batch.offsets, batch.timestamps, batch.values, strict=True)
        )
    ]
    assert found == expected
    assert records.next_fetch_offset == upstream.next_fetch_offset == position.read == end
    assert position.delivered == (fetched[-1].after if fetched else 0)
    assert all(batch.epoch == 4 for batch in fetched)


def test_reading_that_begins_inside_a_batch_leaves_out_what_was_read_before() -> None:
    raw, end = encoded([Batch((0,) * 10)], 100)
    (batch,), _, _ = unpacked(raw, 104)
    assert batch.offsets == [104, 105, 106, 107, 108, 109]
    assert (batch.before, batch.after) == (104, end)


def test_a_control_batch_gives_no_record_and_is_read_past() -> None:
    raw, end = encoded([Batch((0, 0)), Batch((0,), control=True)], 100)
    (batch,), records, position = unpacked(raw, 100)
    assert batch.offsets == [100, 101]
    assert (position.delivered, position.read, records.next_fetch_offset) == (102, end, end)


def test_offsets_that_compaction_took_from_the_end_of_a_batch_are_read_past() -> None:
    raw, end = encoded([Batch((0, 0), tail=5)], 100)
    (batch,), records, _ = unpacked(raw, 100)
    assert batch.after == records.next_fetch_offset == end == 107


def test_a_batch_with_a_wrong_checksum_gives_no_record_and_leaves_the_position_before_it() -> None:
    first, _ = encoded([Batch((0, 0))], 100)
    second, _ = encoded([Batch((0, 0))], 102)
    # A changed digit in a value, which only the checksum can detect.
    damaged = first + second.replace(b"v103", b"v109")
    records, position = partition_records(damaged, 100), Position()
    unpacking = fetcher._batches(records, position)
    assert next(unpacking).offsets == [100, 101]
    with pytest.raises(CorruptRecordException):
        next(unpacking)
    assert records.next_fetch_offset == position.delivered == 102
    with pytest.raises(CorruptRecordException):
        list(partition_records(damaged, 100))


def test_a_slice_joins_the_batches_of_a_fetch_in_offset_order_up_to_the_size_of_an_event() -> None:
    size = transport.MAX_RECORDS_PER_EVENT // 4
    raw, end = encoded([Batch((0,) * size, content_type=b"application/json")] * 5, 100)
    fetched, _, _ = unpacked(raw, 100)
    # Typed as Any: Faust's abstract base declares an `__init__` with arguments that no scheduler has.
    scheduler: Any = SliceScheduler
    found = list(scheduler().iterate({TELEMETRY: fetched, TP("plain", 0): ["a", "b"]}))

    assert [value for tp, value in found if tp.topic == "plain"] == ["a", "b"]
    deliveries = [value for tp, value in found if tp == TELEMETRY]
    assert [(d.before, d.after, d.epoch) for d in deliveries] == [(100, 100 + 4 * size, 4), (100 + 4 * size, end, 4)]
    assert [offset for d in deliveries for offset in d.slice.offsets] == list(range(100, end))
    assert {d.slice.source for d in deliveries} == {SOURCE}
    for delivery in deliveries:
        whole = delivery.slice
        # `encoded` gives every second record of a batch the header, and the size of a batch is even.
        assert set(whole.content_types) == set(range(0, len(whole.offsets), 2))
        assert len(whole.values) == len(whole.timestamps) == len(whole.offsets)


class _Assignment:
    """The parts of an aiokafka assignment that a fetch answer uses."""

    active = True

    def __init__(self, position: int) -> None:
        self.state = TopicPartitionState(self)
        self.state.seek(position)

    def state_value(self, tp: object) -> TopicPartitionState:
        return self.state


def _fetcher(reading: Reading, answer: Any) -> SliceFetcher:
    """A fetcher whose broker returns `answer`, without a client, a task or a socket."""
    fetcher: SliceFetcher = SliceFetcher.__new__(SliceFetcher)
    fetcher.reading = reading
    fetcher._client = SimpleNamespace(send=answer)
    fetcher._client_rack = ""
    fetcher._records = {}
    fetcher._key_deserializer = fetcher._value_deserializer = None
    fetcher._check_crcs, fetcher._isolation_level = True, READ_UNCOMMITTED
    fetcher._prefetch_backoff = 0.0
    fetcher._retry_backoff = 0.0
    return fetcher


def _answer(raw: bytes, highwater: int) -> SimpleNamespace:
    return SimpleNamespace(API_VERSION=4, topics=[(TELEMETRY.topic, [(TELEMETRY.partition, 0, highwater, 0, [], raw)])])


_REQUEST = SimpleNamespace(topics=[(TELEMETRY.topic, [(TELEMETRY.partition, 100, 1 << 20)])])


async def test_an_answer_is_noted_with_its_high_watermark_and_its_records_come_by_batch() -> None:
    raw, end = encoded([Batch((0, 0, 0))], 100)

    async def send(node: int, request: object) -> SimpleNamespace:
        return _answer(raw, 200)

    reading = Reading(batched=frozenset({TELEMETRY.topic}))
    fetcher, assignment = _fetcher(reading, send), _Assignment(100)
    before = time.monotonic()
    assert await fetcher._proc_fetch_request(assignment, 1, _REQUEST)
    answer = reading.positions[SOURCE].answer
    assert answer is not None
    assert answer.highwater == 200
    # aiokafka records whole milliseconds.
    assert before - 0.001 <= answer.at <= time.monotonic()
    result = fetcher._records[TELEMETRY]
    assert isinstance(result, FetchResult)
    (batch,) = result.getall(500)
    assert batch.offsets == [100, 101, 102]
    assert assignment.state.position == end


async def test_an_answer_that_was_processed_late_does_not_pass_for_a_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]

    async def send(node: int, request: object) -> SimpleNamespace:
        # The process was stopped for a minute while the answer was in the socket.
        now[0] += 60
        return _answer(b"", 100)

    monkeypatch.setattr(time, "time", lambda: T + now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    reading = Reading(batched=frozenset({TELEMETRY.topic}))
    await _fetcher(reading, send)._proc_fetch_request(_Assignment(100), 1, _REQUEST)
    answer = reading.positions[SOURCE].answer
    assert answer is not None
    assert answer.at <= 1000 + fetcher.FETCH_WAIT_MS / 1000 + 1


@pytest.mark.parametrize("step", [600.0, -600.0])
async def test_a_wall_clock_that_is_set_does_not_change_when_an_answer_was_given(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    wall = [float(T)]

    async def send(node: int, request: object) -> SimpleNamespace:
        wall[0] += step
        return _answer(b"", 100)

    monkeypatch.setattr(time, "time", lambda: wall[0])
    reading = Reading(batched=frozenset({TELEMETRY.topic}))
    before = time.monotonic()
    await _fetcher(reading, send)._proc_fetch_request(_Assignment(100), 1, _REQUEST)
    answer = reading.positions[SOURCE].answer
    assert answer is not None
    assert before <= answer.at <= time.monotonic()


async def test_an_answer_for_a_position_that_was_left_meanwhile_is_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    now, left = [1000.0], [False]

    async def send(node: int, request: object) -> SimpleNamespace:
        if left[0]:
            assignment.state.seek(500)
        return _answer(b"", 100)

    monkeypatch.setattr(time, "time", lambda: now[0])
    reading = Reading(batched=frozenset({TELEMETRY.topic}))
    fetcher, assignment = _fetcher(reading, send), _Assignment(100)
    await fetcher._proc_fetch_request(assignment, 1, _REQUEST)
    assert reading.positions[SOURCE].answer is not None
    reading.positions[SOURCE].answer = None
    now[0], left[0] = 1001.0, True
    await fetcher._proc_fetch_request(assignment, 1, _REQUEST)
    assert reading.positions[SOURCE].answer is None


async def test_plain_topics_are_fetched_as_upstream_does() -> None:
    raw, _ = encoded([Batch((0, 0, 0))], 100)

    async def send(node: int, request: object) -> SimpleNamespace:
        return _answer(raw, 103)

    reading = Reading()
    fetcher, assignment = _fetcher(reading, send), _Assignment(100)
    await fetcher._proc_fetch_request(assignment, 1, _REQUEST)
    assert [record.offset for record in fetcher._records[TELEMETRY].getall(500)] == [100, 101, 102]
    assert reading.positions == {}


OTHER = TP("requests", 4)


class _Reads:
    """A consumer with fetched records of partition TELEMETRY, which is paused because its agent's buffer is full."""

    def __init__(self) -> None:
        raw, _ = encoded([Batch((0, 0, 0))], 100)
        self.fetcher = _fetcher(Reading(), None)
        self.fetcher._fetch_waiters, self.fetcher._closed = set(), False
        self.fetcher._loop = asyncio.get_running_loop()
        self.fetcher._wait_consume_future = None
        self.fetcher._subscriptions = SimpleNamespace(reassignment_in_progress=False, is_assigned=lambda tp: True)
        records = partition_records(raw, 100)
        self.fetcher._records[TELEMETRY] = FetchResult(
            TELEMETRY, assignment=_Assignment(100), partition_records=records, backoff=0
        )
        thread: Any = transport._ConsumerThread.__new__(transport._ConsumerThread)
        thread.thread_loop = asyncio.get_running_loop()
        thread._ensure_consumer = lambda: SimpleNamespace(_fetcher=self.fetcher)
        self.consumer = _consumer()
        self.consumer._thread = thread
        self.consumer._active_partitions, self.consumer._buffered_partitions = {TELEMETRY, OTHER}, set()
        self.consumer.app.in_recovery = False
        self.consumer.on_buffer_full(TELEMETRY)

    async def waiting(self, within: float) -> asyncio.Task[Any]:
        """A read that has found no record and waits."""
        active = self.consumer._get_active_partitions()
        read = asyncio.create_task(self.fetcher.fetched_records(active, timeout=within))
        while not self.fetcher._fetch_waiters:
            await asyncio.sleep(0)
        return read


async def test_a_partition_is_read_as_soon_as_there_is_room_for_it() -> None:
    reads = _Reads()
    waiting = await reads.waiting(within=60)
    reads.consumer.on_buffer_drop(TELEMETRY)
    async with asyncio.timeout(60):
        found = await waiting
    assert [record.offset for record in found[TELEMETRY]] == [100, 101, 102]


async def test_room_in_a_buffer_that_was_not_full_or_after_the_end_wakes_nobody() -> None:
    reads = _Reads()
    waiting = await reads.waiting(within=60)
    reads.consumer.on_buffer_drop(OTHER)
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    closed = asyncio.new_event_loop()
    closed.close()
    reads.consumer._thread.thread_loop = closed
    reads.consumer.on_buffer_drop(TELEMETRY)
    assert reads.consumer._get_active_partitions() == {TELEMETRY, OTHER}


async def test_upstream_still_leaves_a_read_waiting_when_there_is_room() -> None:
    reads = _Reads()
    waiting = await reads.waiting(within=0.05)
    driver.Consumer.on_buffer_drop(reads.consumer, TELEMETRY)
    assert await waiting == {}, "upstream wakes the read: remove change 9 of the driver"
    assert "getmany(timeout=1.0)" in inspect.getsource(faust_consumer.Consumer._drain_messages)


def _tracker(read: int) -> Any:
    """The state in which Faust counts the acknowledged and the missing offsets of a partition."""
    return SimpleNamespace(
        _committed_offset=defaultdict(lambda: None),
        _gap=defaultdict(faust_consumer.IntervalTree),  # type: ignore[attr-defined]
        _acked=defaultdict(list),
        _acked_index=defaultdict(set),
        _read_offset={TELEMETRY: read},
        app=SimpleNamespace(reading=Reading(batched=frozenset({"requests"}), committable=lambda source: 77)),
    )


async def test_upstream_still_counts_the_delivered_message_as_missing() -> None:
    tracker = _tracker(1)
    # As `_drain_messages` calls it if offset 5 follows offset 1.
    await faust_consumer.Consumer._add_gap(tracker, TELEMETRY, 2, 5)
    assert tracker._gap[TELEMETRY].overlaps(5), "the gap no longer holds the message: see change 3 of the driver"
    assert "await self._add_gap(tp, r_offset + 1, offset)" in inspect.getsource(faust_consumer.Consumer._drain_messages)


def _consumer(read: int = 1) -> Any:
    consumer: Any = transport.Consumer.__new__(transport.Consumer)
    consumer.__dict__.update({name: value for name, value in vars(_tracker(read)).items() if name != "app"})
    consumer.app = _tracker(read).app
    return consumer


async def test_a_gap_of_a_plain_topic_ends_before_the_delivered_message_and_telemetry_has_none() -> None:
    consumer = _consumer()
    plain = TP("commands", 0)
    await consumer._add_gap(plain, 2, 5)
    assert [consumer._gap[plain].overlaps(offset) for offset in (1, 2, 3, 4, 5)] == [False, True, True, True, False]
    await consumer._add_gap(TELEMETRY, 2, 5)
    assert not consumer._gap[TELEMETRY]


def test_of_telemetry_the_offset_is_committed_that_stage_1_names_whatever_was_delivered() -> None:
    consumer = _consumer()
    consumer._acked[TELEMETRY] = [90, 91]
    consumer._acked_index[TELEMETRY] = {90, 91}
    assert consumer._new_offset(TELEMETRY) == 77
    assert not consumer._acked[TELEMETRY]
    plain = TP("commands", 0)
    consumer._acked[plain] = [4, 5]
    assert consumer._new_offset(plain) == 6


def test_a_slice_is_one_message_with_its_last_offset() -> None:
    raw, _ = encoded([Batch((0, 0, 0))], 100)
    fetched, _, _ = unpacked(raw, 100)
    (delivery,) = transport._join(TELEMETRY, fetched)
    consumer = _consumer()
    consumer.app.consumer_generation_id = 9
    message = consumer._to_message(TELEMETRY, delivery)
    assert isinstance(message, ConsumerMessage)
    assert (message.tp, message.offset, message.value, message.key) == (TELEMETRY, 102, delivery, None)
    assert message.generation_id == 9


async def test_the_table_manager_does_upstreams_work_without_its_sleep() -> None:
    done: list[str] = []

    async def update() -> None:
        done.append("channels")

    async def start() -> None:
        done.append("recovery")

    async def sleep(seconds: float) -> None:
        done.append(f"sleep {seconds}")

    manager: Any = SimpleNamespace(
        should_stop=False, _update_channels=update, recovery=SimpleNamespace(start=start), sleep=sleep
    )
    await transport.QuickTableManager.on_start(manager)
    assert done == ["channels", "recovery"]
    done.clear()
    await TableManager.on_start(manager)
    assert done == ["sleep 1.0", "channels", "recovery"], "upstream's start has changed: see change 7 of the driver"


async def test_only_an_answer_of_a_broker_is_noted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = ["heartbeat", TimeoutError(), "fetch"]

    class Connection:
        async def send(self, request: object, *, expect_response: bool) -> object:
            now[0] += 5
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def close(self, reason: object) -> None:
            pass

    async def ready(self: object, node_id: int, *, group: object) -> bool:
        return True

    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(AIOKafkaClient, "ready", ready)
    client: Any = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    client.__class__ = AnsweredClient
    client.reading = Reading()
    client._conns[1, ConnectionGroup.COORDINATION] = Connection()
    seen = []
    for _ in range(3):
        with contextlib.suppress(RequestTimedOutError):
            await client.send(1, object(), group=ConnectionGroup.COORDINATION)
        seen.append(client.reading.answered_at)
    assert seen == [105, 105, 115]


async def test_the_same_metadata_is_asked_for_with_the_back_off_between_and_a_new_topic_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asked = [100.0], []

    async def update(self: object, cluster: object, topics: object) -> bool:
        asked.append(now[0])
        now[0] += 0.002
        return True

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(AIOKafkaClient, "_metadata_update", update)
    client: Any = AIOKafkaClient(bootstrap_servers="127.0.0.1:1", retry_backoff_ms=100)
    client.__class__ = PatientClient
    topics: set[str] = {"a"}
    for _ in range(3):
        assert await client._metadata_update(client.cluster, topics)
    topics.add("b")
    await client._metadata_update(client.cluster, topics)
    now[0] += 60
    await client._metadata_update(client.cluster, topics)
    assert [round(at - 100, 3) for at in asked] == [0.0, 0.1, 0.2, 0.202, 60.204]


@pytest.mark.parametrize(
    ("upstream", "parameters"),
    [
        (AIOKafkaClient.send, ["self", "node_id", "request", "group"]),
        (AIOKafkaClient._metadata_update, ["self", "cluster_metadata", "topics"]),
        (driver.Producer._new_producer, ["self", "transactional_id"]),
        (Fetcher._proc_fetch_request, ["self", "assignment", "node_id", "request"]),
        (Fetcher._update_fetch_positions, ["self", "assignment", "node_id", "tps"]),
        (FetchResult.has_more, ["self"]),
        (DefaultSchedulingStrategy.map_from_records, ["records"]),
        (driver.AIOKafkaConsumerThread.on_start, ["self"]),
        (driver.AIOKafkaConsumerThread._create_worker_consumer, ["self", "transport"]),
        (driver.AIOKafkaConsumerThread.seek_to_committed, ["self"]),
        (driver.AIOKafkaConsumerThread._ensure_consumer, ["self"]),
        (ServiceThread.on_start, ["self"]),
        (driver.AIOKafkaConsumerThread.call_thread, ["self", "fun", "args", "kwargs"]),
        (driver.Consumer._new_consumer_thread, ["self"]),
        (driver.Consumer.seek_to_committed, ["self"]),
        (driver.Consumer.on_partitions_revoked, ["self", "revoked"]),
        (driver.Consumer.on_start, ["self"]),
        (driver.Consumer.perform_seek, ["self"]),
        (driver.Consumer.stop_flow, ["self"]),
        (driver.Consumer.resume_flow, ["self"]),
        (driver.Consumer.wait_for_stopped_flow, ["self"]),
        (driver.Consumer.on_buffer_full, ["self", "tp"]),
        (driver.Consumer.on_buffer_drop, ["self", "tp"]),
        (Fetcher._create_fetch_waiter, ["self"]),
        (Fetcher._notify, ["self", "future"]),
        (driver.Consumer._to_message, ["self", "tp", "record"]),
        (driver.Consumer._add_gap, ["self", "tp", "offset_from", "offset_to"]),
        (driver.Consumer._new_offset, ["self", "tp"]),
        (driver.Consumer._filter_tps_with_pending_acks, ["self", "topics"]),
        (TableManager.on_start, ["self"]),
        (TableManager._update_channels, ["self"]),
        (FaustApp._new_transport, ["self"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_what_is_overridden_or_called_is_there_with_the_same_parameters(upstream: Any, parameters: list[str]) -> None:
    assert list(inspect.signature(upstream).parameters) == parameters


async def test_private_state_that_is_read_is_there() -> None:
    records = partition_records(encoded([Batch((0,))], 0)[0], 0)
    assert {"_records", "_tp", "_check_crcs", "next_fetch_offset", "_records_iterator"} <= set(vars(records))
    result = FetchResult(TELEMETRY, assignment=_Assignment(0), partition_records=records, backoff=0)
    assert result._partition_records is records
    assert {"highwater", "timestamp"} <= set(vars(TopicPartitionState(_Assignment(0))))
    assert isinstance(TopicPartitionState.awaiting_reset, property)
    assert "await_reset(self._default_reset_strategy)" in inspect.getsource(Fetcher._proc_fetch_request)
    # `on_start` replaces methods of the running fetcher and client by setting attributes on the instances.
    assert not hasattr(Fetcher, "__slots__")
    assert not hasattr(AIOKafkaClient, "__slots__")
    assert "await self._metadata_update(self.cluster, topics)" in inspect.getsource(AIOKafkaClient._md_synchronizer)
    assert "self.client = AIOKafkaClient(" in inspect.getsource(AIOKafkaProducer.__init__)
    assert "self._retry_backoff = retry_backoff_ms / 1000" in inspect.getsource(AIOKafkaClient.__init__)
    assert "self._client = AIOKafkaClient(" in inspect.getsource(AIOKafkaConsumer.__init__)
    # The wait is set after the consumer is created and before it starts.
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.start)
    assert "fetch_min_bytes=self._fetch_min_bytes" in inspect.getsource(AIOKafkaConsumer.start)
