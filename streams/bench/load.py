"""Topics filled before a measurement begins, and what was counted of them when it is over."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer

from detectors.cells import LATE, REQUESTS
from streams.bench.shop import Timed
from streams.kafka.admin import remove
from streams.kafka.reader import read_topic
from streams.kafka.topics import Topics, TopicSpec, create
from streams.partials.decode import decode

TELEMETRY_PARTITIONS = 8
PARTIALS_PARTITIONS = 8
_DAY_MS = 86_400_000


class Place:
    """Topics of one measurement, with names of their own: telemetry and flipback's."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.client: dict[str, Any] = {"bootstrap_servers": kafka.split(",")}
        self.prefix = f"flipback-bench-{uuid.uuid4().hex[:8]}"
        self.telemetry = f"{self.prefix}-requests"
        self.topics = Topics(self.prefix)

    async def create(self, lookback: float) -> dict[str, int]:
        """Create all topics and return their numbers of partitions."""
        own = self.topics.specs(PARTIALS_PARTITIONS, lookback)
        telemetry = TopicSpec(self.telemetry, TELEMETRY_PARTITIONS, _DAY_MS, "samples")
        return (await create([*own, telemetry], replication=-1, connection=self.client)).partitions

    async def remove(self) -> None:
        await remove([spec.name for spec in self.topics.specs(1, 0)] + [self.telemetry], self.client)


@asynccontextmanager
async def place(kafka: str, lookback: float) -> AsyncIterator[Place]:
    """Topics that exist for the duration of the block."""
    made = Place(kafka)
    await made.create(lookback)
    try:
        yield made
    finally:
        await made.remove()


async def load(topic: str, partitions: Mapping[int, Iterable[Timed]], client: dict[str, Any]) -> dict[int, int]:
    """Write records to their partitions and return how many each got, when all are acknowledged.

    Batches are of 16 KiB, aiokafka's default, which is what a producer with a linger sends under load.
    """
    async with AIOKafkaProducer(**client, acks="all") as producer:
        return dict(await asyncio.gather(*(_load(producer, topic, p, records) for p, records in partitions.items())))


async def _load(producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[Timed]) -> tuple[int, int]:
    sent = []
    count = 0
    batch = producer.create_batch()
    for record in records:
        count += 1
        if batch.append(key=None, value=record.value, timestamp=record.timestamp_ms) is None:
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(key=None, value=record.value, timestamp=record.timestamp_ms)
    if batch.record_count():
        sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
    return partition, count


async def counted(place: Place) -> tuple[int, int]:
    """Requests of whole services in all partials, and late ones."""
    requests = late = 0
    async with aclosing(read_topic(place.topics.partials, place.client)) as reads:
        async for read in reads:
            for record in read.records:
                _, cells = decode(record.value or b"")
                whole = [not cells.scopes[scope].flag for scope in cells.scope.tolist()]
                requests += int(cells.counts[whole, REQUESTS].sum())
                late += int(cells.counts[whole, LATE].sum())
            if read.at_end:
                break
    return requests, late
