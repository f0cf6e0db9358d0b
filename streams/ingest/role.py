"""The ingest role: the Faust app around stage 1."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streams.clock import Clock
from streams.decoders.columns import Reject
from streams.decoders.decoder import Decoder
from streams.decoders.interner import Interner
from streams.decoders.watch_list import WatchList
from streams.ingest.ingest import Ingest, PartialsOutput
from streams.ingest.rejected import RejectedLog
from streams.kafka.app import new_app, send_until_acknowledged
from streams.kafka.connection import Connection
from streams.kafka.outbox import Record
from streams.kafka.reading import Delivery, Reading
from streams.kafka.topics import Topics
from streams.memory import keep_freed_memory
from streams.settings import Format
from streams.slices import Source

_TICK = 0.02
"""Seconds between flushes: a second is closed at most this long after the watermark has passed it."""

_GATHER = 64 << 10
"""Bytes that a broker collects before it answers. An answer per record took half a core at 800 requests/s; a slice
costs 2 ms."""

_BUFFERED_SLICES = 8
"""Slices that may wait for the reducer: about 3 MB at 2,000 records of 200 bytes."""

COUNTED = 300.0
"""Seconds of an outage that are counted afterwards. After a longer one only the triggers' lookback is read, so that a
backlog of days does not delay the present."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """Settings of stage 1, from the configuration.

    `formats` maps each telemetry topic to its format, `sources` to what counts as one source there (by default the
    instance). `watch` is what triggers need. Reading starts with records younger than `lookback` seconds, or than
    `COUNTED` if that is longer.
    """

    formats: Mapping[str, Format]
    sources: Mapping[str, str] = field(default_factory=dict)
    watch: WatchList
    max_scopes: int
    max_lateness: float
    lookback: float


class IngestRole:
    """Reads the telemetry topics and writes partials.

    `partitions` maps every topic, telemetry or flipback's own, to its number of partitions. `publish` takes rejected
    records and returns at once: a rejected topic that is missing or refuses records must not stop the counting.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        settings: IngestSettings,
        *,
        partitions: Mapping[str, int],
        clock: Clock,
        publish: Callable[[Record], object],
    ) -> None:
        keep_freed_memory()
        self._publish = publish
        self._topics = topics
        self._clock = clock
        self._reading = Reading(
            batched=frozenset(settings.formats),
            lookback=dict.fromkeys(settings.formats, max(settings.lookback, COUNTED)),
            bounded=frozenset(settings.formats),
            committable=lambda source: self.ingest.committable(source),
            min_bytes=_GATHER,
            on_start=self._assigned,
            on_revoke=lambda: self.ingest.revoke(),
        )
        self.app = new_app(f"{topics.prefix}-ingest", connection, self._reading, buffer=_BUFFERED_SLICES)
        interner = Interner(settings.watch, settings.max_scopes)
        self.rejected = RejectedLog()
        self.ingest = Ingest(
            PartialsOutput(uuid.uuid4().hex[:12], partitions[topics.partials], self._send),
            positions=self._reading.positions,
            partitions=partitions,
            decoder=Decoder(settings.formats, interner, settings.sources),
            interner=interner,
            max_lateness=settings.max_lateness,
            clock=clock,
        )
        self.assigned = False
        topic = self.app.topic(*settings.formats, value_serializer="raw", key_serializer="raw")
        self.app.agent(topic, name="ingest")(self._take)
        self.app.task(self._flush)

    def owned(self) -> set[Source]:
        return self.ingest.owned()

    async def _assigned(self, offsets: Mapping[Source, int]) -> None:
        self.ingest.assign(offsets)
        self.assigned = True

    async def _send(self, partition: int, value: bytes) -> None:
        at = await send_until_acknowledged(self.app, self._topics.partials, value, partition=partition)
        if at is not None:
            self._clock.acknowledged(at)

    async def _take(self, stream: object) -> None:
        try:
            async for event in stream.events():  # type: ignore[attr-defined]
                delivery: Delivery = event.value
                for reject in self.ingest.take(delivery):
                    self._reject(delivery, reject)
        except Exception as error:
            # Faust would restart the agent after the lost slice. Crash instead: another process reads the slice again.
            await self.app.crash(error)
            raise

    def _reject(self, delivery: Delivery, reject: Reject) -> None:
        record = self.rejected.record(delivery.slice, reject, time.monotonic())
        if record is not None:
            value, headers = record
            self._publish(Record(self._topics.rejected, value, headers=headers))

    def _resize(self) -> None:
        """Pass on the numbers of partitions in the consumer's metadata, which has none for a missing topic."""
        for topic in self._reading.batched:
            partitions = self.app.consumer.topic_partitions(topic)
            if partitions:
                self.ingest.resized(topic, partitions)

    async def _flush(self) -> None:
        while not self.app.should_stop:
            if self.assigned:
                self._resize()
            await self.ingest.flush()
            await asyncio.sleep(_TICK)
