"""Creates and fills the topics of a measurement, and counts the requests in its partials afterwards."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer

from detectors.cells import LATE, REQUESTS
from streams.bench.shop import TimedRecord
from streams.kafka.admin import remove
from streams.kafka.reader import read_topic
from streams.kafka.topics import Topics, TopicSpec, create
from streams.partials.decode import decode

TELEMETRY_PARTITIONS = 8
PARTIALS_PARTITIONS = 8
_DAY_MS = 86_400_000


class BenchTopics:
    """The topics of one measurement, with a random prefix: the telemetry topic and flipback's own."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.client: dict[str, Any] = {"bootstrap_servers": kafka.split(",")}
        self.prefix = f"flipback-bench-{uuid.uuid4().hex[:8]}"
        self.telemetry = f"{self.prefix}-requests"
        self.own = Topics(self.prefix)

    async def create(self, lookback: float) -> dict[str, int]:
        """Create all topics; returns the number of partitions of each."""
        own = self.own.specs(PARTIALS_PARTITIONS, lookback)
        telemetry = TopicSpec(self.telemetry, TELEMETRY_PARTITIONS, _DAY_MS, "samples")
        return (await create([*own, telemetry], replication=-1, connection=self.client)).partitions

    async def remove(self) -> None:
        await remove([spec.name for spec in self.own.specs(1, 0)] + [self.telemetry], self.client)


@asynccontextmanager
async def bench_topics(kafka: str, lookback: float) -> AsyncIterator[BenchTopics]:
    """Topics that are created before the block and removed after it."""
    topics = BenchTopics(kafka)
    await topics.create(lookback)
    try:
        yield topics
    finally:
        await topics.remove()


async def load(topic: str, partitions: Mapping[int, Iterable[TimedRecord]], client: dict[str, Any]) -> dict[int, int]:
    """Write records to their partitions; returns the number of records of each once all are acknowledged.

    Batches have 16 KiB, aiokafka's default, as those of a producer under load.
    """
    async with AIOKafkaProducer(**client, acks="all") as producer:
        return dict(await asyncio.gather(*(_load(producer, topic, p, records) for p, records in partitions.items())))


async def _load(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[TimedRecord]
) -> tuple[int, int]:
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


async def counted_requests(topics: BenchTopics) -> tuple[int, int]:
    """The number of requests in all partials, and of late samples; each counts once, for its service."""
    requests = late = 0
    async with aclosing(read_topic(topics.own.partials, topics.client)) as reads:
        async for read in reads:
            for record in read.records:
                _, cells = decode(record.value or b"")
                whole = [not cells.scopes[scope].flag for scope in cells.scope.tolist()]
                requests += int(cells.counts[whole, REQUESTS].sum())
                late += int(cells.counts[whole, LATE].sum())
            if read.at_end:
                break
    return requests, late
