"""Measures stage 1 on one core: from telemetry in Kafka to acknowledged partials, for JSON and for columnar records."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Mapping

from agent.bench.measures import Measure, figure
from agent.errors import FlipbackError
from streams.bench.load import (
    PARTIALS_PARTITIONS,
    TELEMETRY_PARTITIONS,
    BenchTopics,
    bench_topics,
    counted_requests,
    load,
)
from streams.bench.shop import Shop, TimedRecord
from streams.bench.workers import Task, WorkerResult, measured
from streams.settings import Format

JSON_RECORDS = 1_000_000
COLUMNAR_RECORDS = 12_000
SAMPLES_A_RECORD = 1000
WARM_UP_SHARE = 0.1
PLAIN_RECORDS = 80_000
PLAIN_WARM_UP = 10_000
SERVICES = 50
EVENT_SECONDS = 20.0
"""Seconds of event time in the data of each topic."""

_INGEST = "streams.bench.ingest_worker"
_PLAIN = "streams.bench.plain_worker"
_TIMEOUT = 120.0


def ingest(kafka: str) -> Iterator[Measure]:
    """Measure both formats; JSON also with a plain Faust agent on the same topic."""
    yield from asyncio.run(_json(kafka))
    yield asyncio.run(_columnar(kafka))


async def _json(kafka: str) -> list[Measure]:
    shop = Shop(SERVICES, JSON_RECORDS / EVENT_SECONDS)
    start = _start()
    each = JSON_RECORDS // TELEMETRY_PARTITIONS
    async with bench_topics(kafka, 0) as topics:
        records = {p: shop.json(start, each, 1 / TELEMETRY_PARTITIONS) for p in range(TELEMETRY_PARTITIONS)}
        ends, size = await _load(topics, records)
        own = await _ingested(topics, "json", ends, JSON_RECORDS)
        plain = {uvloop: await _plain(topics, ends, uvloop) for uvloop in (False, True)}
    data = (
        f"{JSON_RECORDS:,} single JSON records of {size:.0f} B in the mean, 12 fields, {SERVICES} services x 2 variants"
        f", {TELEMETRY_PARTITIONS} partitions, batches of 16 KiB, loaded before"
    )
    base = _per_cpu(plain[False])
    return [
        figure(
            "ingest_json",
            _per_cpu(own),
            "records/CPU s",
            f"the ingest role in its own process on one core, Kafka to partials acknowledged, first "
            f"{WARM_UP_SHARE:.0%} not measured; {data}; {_seconds(own)}; baseline: a plain Faust agent, the same "
            f"topic and reduction, {PLAIN_RECORDS:,} records after {PLAIN_WARM_UP:,}; {_seconds(plain[False])}",
            baseline=base,
        ),
        figure("ingest_json_wall", _per_wall(own), "records/s", "as ingest_json, by wall clock", baseline=None),
        figure(
            "ingest_json_uvloop",
            _per_cpu(own),
            "records/CPU s",
            "as ingest_json, the plain Faust agent on uvloop too, which Faust does not use by itself; "
            + _seconds(plain[True]),
            baseline=_per_cpu(plain[True]),
        ),
    ]


async def _columnar(kafka: str) -> Measure:
    samples = COLUMNAR_RECORDS * SAMPLES_A_RECORD
    shop = Shop(SERVICES, samples / EVENT_SECONDS)
    start = _start()
    each = COLUMNAR_RECORDS // TELEMETRY_PARTITIONS
    async with bench_topics(kafka, 0) as topics:
        share = 1 / TELEMETRY_PARTITIONS
        records = {p: shop.columnar(start, each, SAMPLES_A_RECORD, share) for p in range(TELEMETRY_PARTITIONS)}
        ends, size = await _load(topics, records)
        own = await _ingested(topics, "columnar", ends, samples)
    return figure(
        "ingest_columnar",
        SAMPLES_A_RECORD * _per_wall(own),
        "samples/s",
        f"the ingest role in its own process on one core, Kafka to partials acknowledged, by wall clock, first "
        f"{WARM_UP_SHARE:.0%} not measured; {COLUMNAR_RECORDS:,} columnar records of {SAMPLES_A_RECORD:,} samples and "
        f"{size:,.0f} B, {SERVICES} services x 2 variants, {TELEMETRY_PARTITIONS} partitions, loaded before; "
        f"{_seconds(own)}, {SAMPLES_A_RECORD * _per_cpu(own):,.0f} samples/CPU s",
    )


def _start() -> float:
    """The first event time. The last one is in the past, so that all seconds close once the reader has caught up."""
    return math.floor(time.time()) - EVENT_SECONDS - 10


async def _load(topics: BenchTopics, records: Mapping[int, Iterator[TimedRecord]]) -> tuple[dict[int, int], float]:
    """Fill the topic; returns the end offset of each partition and the mean size of a record."""
    size = 0

    def measured_size(of: Iterator[TimedRecord]) -> Iterator[TimedRecord]:
        nonlocal size
        for record in of:
            size += len(record.value)
            yield record

    ends = await load(topics.telemetry, {p: measured_size(of) for p, of in records.items()}, topics.client)
    return ends, size / sum(ends.values())


async def _ingested(topics: BenchTopics, form: Format, ends: dict[int, int], samples: int) -> WorkerResult:
    """Measure the role, and check that its partials hold every sample once."""
    task = _task(topics, form, ends, warm_up=int(WARM_UP_SHARE * sum(ends.values())))
    result = await measured(_INGEST, task, within=_TIMEOUT)
    requests, late = await counted_requests(topics)
    if (requests, late) != (samples, 0):
        raise FlipbackError(f"bench: {requests} requests and {late} late ones in the partials, expected {samples}, 0")
    return result


async def _plain(topics: BenchTopics, ends: dict[int, int], uvloop: bool) -> WorkerResult:
    # Each run has another consumer group, and so reads from the beginning.
    prefix = f"{topics.prefix}-{'uvloop' if uvloop else 'asyncio'}"
    task = _task(topics, "json", ends, warm_up=PLAIN_WARM_UP, records=PLAIN_RECORDS, group=prefix, uvloop=uvloop)
    return await measured(_PLAIN, task, within=_TIMEOUT)


def _task(
    topics: BenchTopics,
    form: Format,
    ends: dict[int, int],
    *,
    warm_up: int,
    records: int | None = None,
    group: str | None = None,
    uvloop: bool = True,
) -> Task:
    return Task(
        kafka=topics.kafka,
        prefix=topics.prefix,
        group=group or topics.prefix,
        topic=topics.telemetry,
        format=form,
        services=SERVICES,
        ends=ends,
        partitions={topics.telemetry: TELEMETRY_PARTITIONS, topics.own.partials: PARTIALS_PARTITIONS},
        warm_up=warm_up,
        records=records,
        uvloop=uvloop,
    )


def _per_cpu(result: WorkerResult) -> float:
    return result.records / result.cpu_s


def _per_wall(result: WorkerResult) -> float:
    return result.records / result.wall_s


def _seconds(result: WorkerResult) -> str:
    return f"{result.records:,} records in {result.wall_s:.2f} s and {result.cpu_s:.2f} CPU s"
