"""Measures a start: the time of `flipback --help`, the time until `flipback run` is ready, and its idle memory."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agent.bench.measures import Measure, figure, kib_of
from agent.bench.process import Watched, configure, flipback
from agent.bench.program import program
from detectors.conditions.metric_table import metrics_of
from streams.bench.load import bench_topics

HELPS = 10
STARTS = 3
IDLE = 5.0
"""Seconds between ready and the reading of the memory."""
_WATCHED = Watched(
    "new-recommendations",
    "recommendations",
    (
        "error_rate > 2% for 2m",
        "latency_p95 > 45s for 1m",
        f"{metrics_of('cache')[0]} < 40% for 5m",
        "availability < 99% for 30s",
    ),
)
"""A small useful configuration, that of the README."""


def start(kafka: str) -> Iterator[Measure]:
    """Measure time of the help, time until ready, and idle memory."""
    took = []
    for _ in range(HELPS + 1):
        begin = time.perf_counter()
        subprocess.run([*program(), "--help"], stdout=subprocess.DEVNULL, check=True)  # noqa: S603  # our own command
        took.append(time.perf_counter() - begin)
    yield figure(
        "start_help",
        statistics.median(took[1:]),
        "s",
        f"wall time of `flipback --help`, median of {HELPS} after one that is not counted, {max(took[1:]):.3g} at most",
    )
    with tempfile.TemporaryDirectory(prefix="flipback-bench-") as directory:
        yield from asyncio.run(_start(kafka, Path(directory)))


async def _start(kafka: str, directory: Path) -> list[Measure]:
    async with bench_topics(kafka, 420) as topics:
        config = configure(directory, topics, [_WATCHED])
        starts = [await _ready(config) for _ in range(STARTS)]
        resident, proportional = await _idle(config)
    each = ", ".join(f"{seconds:.2f}" for seconds in starts)
    about = "flipback run with all roles in one process, four triggers, topics of 8 partitions that exist"
    return [
        figure(
            "start_ready",
            statistics.median(starts),
            "s",
            f"start of the process until every role reads its topics; {about}; median of {STARTS}: {each} s",
        ),
        figure(
            "idle_memory",
            resident,
            "MB",
            f"resident memory {IDLE:.0f} s after ready with no traffic; {about}; proportional set size "
            f"{proportional:.4g} MB",
        ),
    ]


async def _ready(config: Path) -> float:
    async with flipback(config) as running:
        return running.ready_at - running.started_at


async def _idle(config: Path) -> tuple[float, float]:
    """Resident and proportional set size in MB."""
    async with flipback(config) as running:
        await asyncio.sleep(IDLE)
        resident = kib_of(running.pid, "VmRSS")
        proportional = kib_of(running.pid, "Pss", "smaps_rollup")
    return resident * 1024 / 1e6, proportional * 1024 / 1e6
