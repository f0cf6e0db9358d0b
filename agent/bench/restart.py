"""Part (e): from the start of a process to caught up, with minutes of partials of 2,000 scopes to read again."""

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
from streams.bench.history import last_words, partials
from streams.bench.load import PARTIALS_PARTITIONS, Place, load, place
from streams.bench.shop import Shop
from streams.health import decoder
from streams.log import read_topic
from streams.monitor_app import REPLAY_MARGIN

SERVICES = 667
"""With the whole service and two variants of its flag each, 2,001 scopes."""
RATE = 4000.0
"""Requests a second in all, spread over 8 source partitions."""
TRIGGERS = ("error_rate@on > 50% over 60s for 5m", "latency_p95@on > 10s over 60s for 5m")
SECONDS = 60 + 300 + int(REPLAY_MARGIN)
STARTS = 3
_SPARE = 60
"""Seconds of history more than are read again."""
_TIMEOUT = 60.0


def restart(kafka: str) -> Iterator[Measure]:
    """Start three times; between the first and the last, the log grows by what flipback writes when nothing comes."""
    with tempfile.TemporaryDirectory(prefix="flipback-bench-") as directory:
        yield from asyncio.run(_restart(kafka, Path(directory)))


async def _restart(kafka: str, directory: Path) -> list[Measure]:
    shop = Shop(SERVICES, RATE)
    async with place(kafka, SECONDS) as at:
        watched = [Watched(shop.flag(n), shop.service(n), TRIGGERS) for n in range(SERVICES)]
        config = configure(directory, at, watched)
        last = int(time.time()) - int(MAX_LATENESS)
        written = await partials(shop, at.telemetry, last - SECONDS - _SPARE, last, max_scopes=3 * SERVICES)
        size = sum(len(record.value) for records in written.values() for record in records)
        ends = await load(at.topics.partials, written, at.client)
        await load(at.topics.health, last_words(last), at.client)
        starts = [await _start(config, at) for _ in range(STARTS)]
    records = sum(ends.values())
    data = (
        f"{3 * SERVICES:,} scopes, {len(TRIGGERS)} triggers on each of {SERVICES}, windows of 60 s and `for` of 5 m: "
        f"{SECONDS} s of partials read again, of {records:,} records and {size / 1e6:.0f} MB in {SECONDS + _SPARE} s, "
        f"made by stage 1 from {RATE:.0f} requests/s over 8 source and {PARTIALS_PARTITIONS} partials partitions; "
        f"flipback run with all roles in one process, median of {STARTS}"
    )
    return [
        figure(
            "restart",
            statistics.median(start.caught_up for start in starts),
            "s",
            f"start of the process to the first live verdict of every partials partition on a second after the "
            f"history; {data}; each: {', '.join(f'{start.caught_up:.2f}' for start in starts)} s",
        ),
        figure(
            "restart_from_assignment",
            statistics.median(start.assigned for start in starts),
            "s",
            f"as restart, from when every role had its partitions; {data}",
        ),
        figure(
            "restart_cpu",
            statistics.median(start.cpu for start in starts),
            "s",
            f"processor time of all threads of the process until then; {data}",
        ),
    ]


class _Start(NamedTuple):
    """Seconds from the start and from the assignment to caught up, and of processor time by then."""

    caught_up: float
    assigned: float
    cpu: float


async def _start(config: Path, at: Place) -> _Start:
    """Start flipback, wait until it is live and end it."""
    after = await _evaluated(at)
    async with flipback(config) as running:
        try:
            async with asyncio.timeout(_TIMEOUT):
                live_at = await _live(at, after)
        except TimeoutError:
            running.child.check()
            raise FlipbackError(f"bench: flipback was not live {_TIMEOUT:.0f} s after its start") from None
        cpu = cpu_seconds(running.pid)
    return _Start(live_at - running.started_at, live_at - running.ready_at, cpu)


async def _evaluated(at: Place) -> dict[int, int]:
    """The last evaluation that each partials partition was judged at."""
    found: dict[int, int] = {}
    async with aclosing(read_topic(at.topics.health, at.client)) as reads:
        async for read in reads:
            for record in read.records:
                frame = decoder.decode(record.value or b"")
                found[frame.partition] = max(found.get(frame.partition, 0), frame.time)
            if read.at_end:
                break
    return found


async def _live(at: Place, after: dict[int, int]) -> float:
    """When the last of all partitions had its first live verdict on a later second, in Unix seconds."""
    first: dict[int, float] = {}
    async with aclosing(read_topic(at.topics.health, at.client)) as reads:
        async for read in reads:
            for record in read.records:
                frame = decoder.decode(record.value or b"")
                if frame.status == "live" and frame.time > after[frame.partition]:
                    first.setdefault(frame.partition, record.timestamp / 1000)
            if len(first) == PARTIALS_PARTITIONS:
                return max(first.values())
    raise AssertionError("the topic is read for ever")
