"""Every change flipback makes to Faust and aiokafka, and nothing else.

Upstream versions: faust-streaming 0.15.3, aiokafka 0.14.0. tests/contract/test_kafka_driver.py fails when a private
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
   (faust/transport/drivers/aiokafka.py, `_seek_to_committed`). One seek at a time: Faust begins a second one while
   the first waits (mode's method queue has two workers), and the one that ended last decided. A position that a broker
   refuses is begun anew the same way, where aiokafka goes to the partition's beginning.
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
10. Metadata is asked for with the client's back-off between two questions (streams/kafka/producer_client.py).

Delete (1)-(3) when Faust delivers batches, (5) when aiokafka exposes the request's time, (9) when Faust tells the read.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

import faust
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP, ConsumerMessage

from streams.kafka.fetcher import FETCH_WAIT_MS, AnsweredClient, SliceFetcher
from streams.kafka.producer_client import Producer
from streams.kafka.reading import Delivery, Fetched, Position, Reading
from streams.kafka.seek import starts
from streams.slices import Slice, Source

MAX_RECORDS_PER_EVENT = 2000
"""Larger events were slower (8,000 records gave 245k/s where 2,000 gave 407k/s: docs/decisions/0002-slices.md): they
fall out of cache."""

_logger = logging.getLogger(__name__)
_faust_logger = logging.getLogger("faust.flipback")
"""Faust names a service's logger after its module; what it says of its own start must not pass for flipback's."""


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
        """Seek each assigned partition to where it begins; see `Reading`."""
        consumer, reading = self._ensure_consumer(), self.reading
        # One at a time: Faust begins a second seek while a first one waits, and the older one may end last.
        async with reading.seeking:
            while True:
                assigned, lost = consumer.assignment(), dict(reading.lost)
                offsets, skips = await starts(consumer, assigned, reading.begin, lost, time.time())
                if consumer.assignment() == assigned:
                    break
            # No await from here on: a slice unpacked before the seek keeps the old epoch.
            for tp, offset in offsets.items():
                consumer.seek(tp, offset)
                if tp.topic in reading.batched:
                    position = reading.positions.setdefault(Source(*tp), Position())
                    position.start = position.delivered = position.read = offset
                    position.epoch += 1
                    position.answer = None
            reading.lost = {source: at for source, at in reading.lost.items() if source not in lost}
        for skip in skips:
            _logger.warning("reading.skipped", extra={"fields": {"reason": str(skip)}})
            reading.skipped.append(skip)
        return {TP(tp.topic, tp.partition): offset for tp, offset in offsets.items()}


class Consumer(driver.Consumer):
    """Faust's consumer with slices as messages and stage 1's word on what may be committed."""

    logger = _faust_logger
    _anew: asyncio.Future[Any] | None = None

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        async with reading.starting:
            while True:
                offsets = await self._thread.seek_to_committed()
                if reading.on_start is not None:
                    await reading.on_start({Source(tp.topic, tp.partition): offset for tp, offset in offsets.items()})
                # A rebalance in between has given this process other partitions than those that were begun.
                if self.assignment() == offsets.keys():
                    return offsets

    async def on_start(self) -> None:
        await super().on_start()
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        reading.on_lost = self._lost

    def _lost(self) -> None:
        """In the consumer's thread; a loop that has ended asks for nothing."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._begin_anew)

    def _begin_anew(self) -> None:
        if self._anew is None or self._anew.done():
            self._anew = self.add_future(self._seek_anew())

    async def _seek_anew(self) -> None:
        """Seek once more, with nothing under way; a rebalance does so by itself."""
        if self.app.rebalancing:
            return
        self.stop_flow()
        await self.wait_for_stopped_flow()
        await self.perform_seek()
        if not self.app.rebalancing:
            self.resume_flow()

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
    """Faust's aiokafka transport with the consumer above, and a producer that asks with patience."""

    Consumer = Consumer
    Producer = Producer


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
