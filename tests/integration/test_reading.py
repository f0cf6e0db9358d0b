"""Changes of topics while flipback reads them: every request is counted, or its loss is reported."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from agent.events.cloudevents import INABILITY, NOTICE
from streams.kafka.topics import TopicSpec, create
from tests.support.telemetry import Telemetry, telemetry
from tests.support.worker import Deployment

PARTITIONS = 3
FLAG = {
    "flag": "new",
    "service": "shop",
    "triggers": [{"name": "errors", "when": "error_rate > 50% for 1m", "min_samples": 30, "fast": False}],
}


@asynccontextmanager
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def running(kafka: str, prefix: str, directory: Path) -> AsyncIterator[Deployment]:
    """A deployment with its topics; its workers are stopped after the block."""
    deployment = Deployment(directory, kafka, prefix, [FLAG], partitions=PARTITIONS)
    await deployment.create_topics()
    try:
        yield deployment
    finally:
        deployment.close()


def logged(deployment: Deployment, event: str) -> list[dict[str, Any]]:
    text = (deployment.directory / "worker-0.log").read_text()
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [row for row in rows if row["event"] == event]


class Traffic:
    """Sends ten requests a second to each of the topic's `partitions` until `end`."""

    def __init__(self, source: Telemetry, partitions: int = PARTITIONS) -> None:
        self.source = source
        self.partitions = partitions
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            for partition in range(self.partitions):
                await self.source.send(partition, "shop", flags={"new": "on"})
            await self.source.flush()
            await asyncio.sleep(0.1)

    def end(self) -> None:
        self._task.cancel()


async def counted_since(deployment: Deployment, since: float) -> dict[int, int]:
    """The counted requests of the service in each second from `since` on."""
    found: dict[int, int] = {}
    for frame in await deployment.health():
        for index, (_, service, flag, _) in enumerate(frame.scopes):
            if service == "shop" and not flag and frame.time - 1 >= since:
                found[frame.time - 1] = frame.counts["requests"][index]
    return found


async def exact_for(deployment: Deployment, source: Telemetry, since: float, seconds: int, within: float) -> None:
    """Wait until, after `since`, the counts of `seconds` seconds in a row equal the sent requests."""
    async with asyncio.timeout(within):
        while True:
            row = 0
            for second, requests in sorted((await counted_since(deployment, since)).items()):
                row = row + 1 if requests == source.exact["shop", second] > 0 else 0
                if row >= seconds:
                    return
            await asyncio.sleep(0.5)


async def test_a_committed_offset_beyond_the_end_loses_no_request_and_is_logged(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with running(kafka, topic_prefix, tmp_path) as deployment, telemetry(kafka, deployment.telemetry) as source:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka, group_id=f"{deployment.prefix}-ingest", enable_auto_commit=False
        )
        await consumer.start()
        tps = [TopicPartition(deployment.telemetry, p) for p in range(PARTITIONS)]
        consumer.assign(tps)
        await consumer.commit(dict.fromkeys(tps, 100_000))
        await consumer.stop()
        await deployment.ready(deployment.start())
        traffic, since = Traffic(source), time.time()
        try:
            await exact_for(deployment, source, since, seconds=5, within=120)
        finally:
            traffic.end()
        reasons = [row["reason"] for row in logged(deployment, "reading.skipped")]
        assert sum("has no offset 100000" in reason for reason in reasons) == PARTITIONS


@pytest.mark.parametrize(("away", "partitions"), [(0.0, PARTITIONS), (15.0, PARTITIONS), (0.0, PARTITIONS - 1)])
async def test_a_telemetry_topic_that_is_made_anew_is_read_again(
    kafka: str, topic_prefix: str, tmp_path: Path, away: float, partitions: int
) -> None:
    async with running(kafka, topic_prefix, tmp_path) as deployment:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source:
            traffic, since = Traffic(source), time.time()
            await exact_for(deployment, source, since, seconds=3, within=120)
            traffic.end()
        async with admin(kafka) as client:
            await client.delete_topics([deployment.telemetry])
        await asyncio.sleep(away)
        spec = TopicSpec(deployment.telemetry, partitions, 86_400_000, "samples")
        await until(lambda: created(spec, deployment), within=120)
        async with telemetry(kafka, deployment.telemetry) as source:
            traffic, since = Traffic(source, partitions), time.time()
            try:
                await exact_for(deployment, source, since, seconds=3, within=120)
            finally:
                traffic.end()
        reasons = [row["reason"] for row in logged(deployment, INABILITY) if row.get("status") == NOTICE]
        assert len(reasons) == (partitions < PARTITIONS)
        assert all(f"has {partitions} partitions and had {PARTITIONS}" in reason for reason in reasons)
        assert deployment.workers[0].poll() is None


async def test_partitions_that_are_added_are_counted_without_a_restart(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with running(kafka, topic_prefix, tmp_path) as deployment:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source:
            traffic, since = Traffic(source), time.time()
            await exact_for(deployment, source, since, seconds=3, within=120)
            traffic.end()
        async with admin(kafka) as client:
            await client.create_partitions({deployment.telemetry: NewPartitions(PARTITIONS + 2)})
        async with telemetry(kafka, deployment.telemetry) as source:
            traffic, since = Traffic(source, PARTITIONS + 2), time.time()
            try:
                await exact_for(deployment, source, since, seconds=3, within=120)
            finally:
                traffic.end()


async def test_the_topic_of_partials_is_missed_announced_and_made_anew(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with running(kafka, topic_prefix, tmp_path) as deployment:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source:
            traffic, since = Traffic(source), time.time()
            try:
                await exact_for(deployment, source, since, seconds=3, within=120)
                async with admin(kafka) as client:
                    await client.delete_topics([deployment.topics.partials])
                deleted = time.time()
                async with asyncio.timeout(120):
                    while not any(
                        row["subject"] == deployment.topics.partials for row in logged(deployment, "flipback.inability")
                    ):
                        await asyncio.sleep(0.2)
                await exact_for(deployment, source, deleted, seconds=3, within=90)
            finally:
                traffic.end()
        assert deployment.workers[0].poll() is None


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_of_kafka_is_read(kafka: str, topic_prefix: str, tmp_path: Path, codec: str) -> None:
    async with running(kafka, topic_prefix, tmp_path) as deployment:
        await deployment.ready(deployment.start())
        producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5, compression_type=codec)
        await producer.start()
        try:
            source = Telemetry(producer, deployment.telemetry)
            traffic, since = Traffic(source), time.time()
            try:
                await exact_for(deployment, source, since, seconds=3, within=120)
            finally:
                traffic.end()
        finally:
            await producer.stop()
        assert not logged(deployment, "telemetry.rejected")


async def created(spec: TopicSpec, deployment: Deployment) -> bool:
    return spec.name in (await create([spec], replication=1, connection=deployment.client)).created


async def until(done: Callable[[], Awaitable[bool]], within: float) -> None:
    async with asyncio.timeout(within):
        while not await done():
            await asyncio.sleep(0.2)
