"""All changes that flipback makes to Faust and aiokafka, here or in `fetcher` and `producer_client` beside this module.

Upstream versions: faust-streaming 0.15.3, aiokafka 0.14.0. tests/contract/test_kafka_driver.py fails if a private name
used here is missing upstream or behaves differently. The changes and their reasons:

1. A fetched slice of a telemetry partition is one event. Upstream makes an event of each record, which costs four
   tasks and three loop turns (faust/transport/consumer.py:1220, mode/services.py:758): 10-14 thousand records/s.
2. A slice is unpacked one Kafka batch at a time, without `ConsumerRecord` objects (aiokafka/consumer/fetcher.py:218):
   0.3 instead of 1.3 microseconds a record.
3. Stage 1 decides which offsets of telemetry are committed: those before its oldest second that is not acknowledged.
   Faust would commit all that its agent has received. Its gap list also counts the delivered message itself as a gap
   (faust/transport/consumer.py:1157-1168 and :1215), which makes batched commits very slow.
4. Reading starts where `streams.kafka.seek` says: on every assignment partials are read again from a time in the past,
   because a monitor's state is rebuilt from them; telemetry without a committed offset starts in the recent past.
   Upstream only knows committed, earliest and latest (faust/transport/drivers/aiokafka.py, `_seek_to_committed`). Seeks
   do not overlap: Faust begins a second seek while the first waits (mode's method queue has two workers), and the one
   that ended last would win. A position that a broker rejects is replaced in the same way; aiokafka would go to the
   partition's beginning.
5. The time of each fetch response is recorded for each partition, with its high watermark. The recorded time is never
   later than the broker can have answered: a process that was stopped for a while must not take an old response for a
   fresh one.
6. A fetch waits at the broker for 50 ms, not for 1.5 s (faust/transport/drivers/aiokafka.py:615), because the watermark
   of a quiet partition advances with each response. A role may ask for a minimum of bytes; upstream gets a response for
   each single record.
7. The table manager starts without its fixed sleep of a second (faust/tables/manager.py:140); flipback has no tables.
8. The time of the last response of any broker is recorded. aiokafka retries without an error, and looks alive.
9. A partition that was paused because an agent's buffer was full is read as soon as there is room. Faust activates it
   again (faust/transport/consumer.py:554), but does not wake the read that waits for the other partitions, for up to a
   second (:1195): with 8 partitions, one to five of 69 seconds were evaluated a second late.
10. Two equal requests for metadata are separated by the client's back-off (streams/kafka/producer_client.py).

Remove 1 to 3 when Faust delivers batches, 5 when aiokafka exposes the time of a request, 9 when Faust wakes the read.
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
"""Larger events do not fit in the processor's cache: 8,000 records gave 245 thousand records/s, 2,000 gave 407 thousand
(docs/decisions/0002-slices.md)."""

_logger = logging.getLogger(__name__)
_faust_logger = logging.getLogger("faust.flipback")
"""The logger of the subclasses below. Faust would take the name of this module, and log its own start as flipback's."""


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
    """Faust's consumer thread, which reads as `reading` says."""

    logger = _faust_logger

    @property
    def reading(self) -> Reading:
        reading: Reading = self.consumer.app.reading  # type: ignore[attr-defined]
        return reading

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_min_bytes = self.reading.min_bytes
        return consumer

    def wake_read(self) -> None:
        """Wake the read that waits for records, so that it returns records fetched before. Thread-safe."""
        # At shutdown agents still empty their buffers after the loop of this thread is closed.
        with contextlib.suppress(RuntimeError):
            self.thread_loop.call_soon_threadsafe(self._wake_read)

    def _wake_read(self) -> None:
        fetcher = self._ensure_consumer()._fetcher
        for waiter in list(fetcher._fetch_waiters):
            fetcher._notify(waiter)

    async def on_start(self) -> None:
        await super().on_start()
        consumer = self._ensure_consumer()
        client = consumer._client
        client.__class__ = AnsweredClient
        client.reading = self.reading
        # The start has requested metadata and would have failed without a response.
        self.reading.answered_at = time.monotonic()
        fetcher = consumer._fetcher
        fetcher.__class__ = SliceFetcher
        fetcher.reading = self.reading

    async def seek_to_committed(self) -> Mapping[TP, int]:
        offsets: Mapping[TP, int] = await self.call_thread(self._seek_to_start)
        return offsets

    async def _seek_to_start(self) -> Mapping[TP, int]:
        """Seek each assigned partition to the offset that `streams.kafka.seek` chooses."""
        consumer, reading = self._ensure_consumer(), self.reading
        # Faust begins a second seek while the first one waits; without the lock the older one might end last.
        async with reading.seeking:
            while True:
                assigned, lost = consumer.assignment(), dict(reading.lost)
                offsets, skips = await starts(consumer, assigned, reading.begin, lost, time.time())
                if consumer.assignment() == assigned:
                    break
            # No await until the end of the loop: a slice unpacked before the seek keeps the old epoch.
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
    """Faust's consumer, whose messages are slices and whose telemetry offsets are committed as stage 1 says."""

    logger = _faust_logger
    _reseek: asyncio.Future[Any] | None = None

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        async with reading.starting:
            while True:
                offsets = await self._thread.seek_to_committed()
                if reading.on_start is not None:
                    await reading.on_start({Source(tp.topic, tp.partition): offset for tp, offset in offsets.items()})
                # Seek again if a rebalance has assigned other partitions in the meantime.
                if self.assignment() == offsets.keys():
                    return offsets

    async def on_start(self) -> None:
        await super().on_start()
        reading: Reading = self.app.reading  # type: ignore[attr-defined]
        reading.on_lost = self._on_lost

    def _on_lost(self) -> None:
        """Called in the consumer's thread: schedule a seek in the app's loop."""
        # The app's loop may be closed at shutdown.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._schedule_seek)

    def _schedule_seek(self) -> None:
        if self._reseek is None or self._reseek.done():
            self._reseek = self.add_future(self._seek_again())

    async def _seek_again(self) -> None:
        """Seek while the flow of records is stopped. A rebalance seeks by itself."""
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
            cast(_ConsumerThread, self._thread).wake_read()

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
    """Faust's aiokafka transport with the consumer above, and a producer that backs off between metadata requests."""

    Consumer = Consumer
    Producer = Producer


class QuickTableManager(TableManager):
    """Starts without Faust's sleep of one second: there is no table to wait for."""

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
