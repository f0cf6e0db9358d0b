"""Measures the time from the start of a process until it has caught up, with minutes of partials of 2,000 scopes.

The first start finds minutes of partials and no checkpoints, as after an upgrade. The others find what flipback has
written under the same traffic. Requests arrive all the time.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from agent.bench.measures import Measure, cpu_seconds, figure
from agent.bench.process import MAX_LATENESS, Watched, configure, flipback
from agent.errors import FlipbackError
from streams.bench.history import last_health, partials
from streams.bench.live import columnar_traffic
from streams.bench.load import PARTIALS_PARTITIONS, BenchTopics, bench_topics, load
from streams.bench.shop import Shop
from streams.kafka.reader import read_topic
from streams.monitor.checkpoint import EVERY
from streams.monitor.health import decoder
from streams.monitor.recall import REPLAY_MARGIN

SERVICES = 667
"""Each has a scope for the whole service and two for the variants of its flag: 2,001 scopes."""
RATE = 4000.0
"""Requests a second in all, spread over 8 source partitions."""
TRIGGERS = ("error_rate@on > 50% over 60s for 5m", "latency_p95@on > 10s over 60s for 5m")
SECONDS = 60 + 300 + int(REPLAY_MARGIN)
STARTS = 3
_SPARE = 60
"""Seconds of history in addition to those that are read again."""
_RUN = 60.0 + EVERY + REPLAY_MARGIN
"""Seconds for which flipback runs before the first restart, so that a restart reads only records of live traffic."""
_BEHIND = MAX_LATENESS + 1.5
"""Maximum age in seconds of a live verdict: the allowed lateness, one second until the next evaluation, and half a
second for processing."""
_TIMEOUT = 60.0


def restart(kafka: str) -> Iterator[Measure]:
    """Start once on minutes of partials alone, then three times on what the previous process has written."""
    with tempfile.TemporaryDirectory(prefix="flipback-bench-") as directory:
        yield from asyncio.run(_restart(kafka, Path(directory)))


async def _restart(kafka: str, directory: Path) -> list[Measure]:
    shop = Shop(SERVICES, RATE)
    async with bench_topics(kafka, SECONDS) as topics:
        watched = [Watched(shop.flag(n), shop.service(n), TRIGGERS) for n in range(SERVICES)]
        config = configure(directory, topics, watched, form="columnar")
        last = int(time.time()) - int(MAX_LATENESS)
        written = await partials(shop, topics.telemetry, last - SECONDS - _SPARE, last, max_scopes=3 * SERVICES)
        size = sum(len(record.value) for records in written.values() for record in records)
        ends = await load(topics.own.partials, written, topics.client)
        await load(topics.own.health, last_health(last), topics.client)
        stop = asyncio.Event()
        sending = asyncio.create_task(columnar_traffic(shop, topics.telemetry, topics.client, stop))
        try:
            first = await _start(config, topics, _RUN)
            starts = [await _start(config, topics, EVERY / 2) for _ in range(STARTS)]
        finally:
            stop.set()
            await sending
    records = sum(ends.values())
    data = (
        f"{3 * SERVICES:,} scopes, {len(TRIGGERS)} triggers on each of {SERVICES}, windows of 60 s and `for` of 5 m, "
        f"{RATE:.0f} requests/s all the time over 8 source and {PARTIALS_PARTITIONS} partials partitions; flipback run "
        "with all roles in one process"
    )
    again = f"{data}, ended by SIGTERM and started again, median of {STARTS}"
    return [
        figure(
            "restart",
            statistics.median(start.caught_up for start in starts),
            "s",
            f"start of the process to the first live verdict of every partials partition that is no older than "
            f"{_BEHIND} s; {again}; each: {', '.join(f'{start.caught_up:.2f}' for start in starts)} s",
        ),
        figure(
            "restart_from_assignment",
            statistics.median(start.assigned for start in starts),
            "s",
            f"as restart, from when every role had its partitions; {again}",
        ),
        figure(
            "restart_cpu",
            statistics.median(start.cpu for start in starts),
            "s",
            f"processor time of all threads of the process until then; {again}",
        ),
        figure(
            "restart_without_checkpoint",
            first.caught_up,
            "s",
            f"as restart, on {SECONDS} s of partials read again, of {records:,} records and {size / 1e6:.0f} MB in "
            f"{SECONDS + _SPARE} s, made by stage 1; {data}, {first.cpu:.1f} s of processor time",
        ),
    ]


class _Start(NamedTuple):
    """Seconds until caught up, from the start and from the assignment, and the processor time used until then."""

    caught_up: float
    assigned: float
    cpu: float


async def _start(config: Path, topics: BenchTopics, run: float) -> _Start:
    """Start flipback, wait until it has caught up, let it run for `run` seconds more and end it."""
    async with flipback(config) as running:
        try:
            async with asyncio.timeout(_TIMEOUT):
                live_at = await _caught_up(topics, running.started_at)
        except TimeoutError:
            running.child.check()
            raise FlipbackError(f"bench: flipback was not live {_TIMEOUT:.0f} s after its start") from None
        cpu = cpu_seconds(running.pid)
        await asyncio.sleep(run)
    return _Start(live_at - running.started_at, live_at - running.ready_at, cpu)


async def _caught_up(topics: BenchTopics, since: float) -> float:
    """When the last of all partitions had its first live verdict after `since`, in Unix seconds."""
    first: dict[int, float] = {}
    async with aclosing(read_topic(topics.own.health, topics.client, since=since)) as reads:
        async for read in reads:
            for record in read.records:
                frame = decoder.decode(record.value or b"")
                if frame.status == "live" and frame.at - frame.time <= _BEHIND and frame.at > since:
                    first.setdefault(frame.partition, record.timestamp / 1000)
            if len(first) == PARTIALS_PARTITIONS:
                return max(first.values())
    raise AssertionError("the topic is read for ever")
