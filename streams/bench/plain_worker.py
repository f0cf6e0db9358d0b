"""Measured worker, the baseline: a plain Faust agent that computes the same statistics from the same topic.

Each record is an event, decoded by msgspec into a typed struct. Dictionaries count per (service, flag, variant, second)
and per (service, second), with the same exponential latency bins; the totals of a second are written when it is over.
Unlike flipback, it does not count each instance separately.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import faust
import msgspec

from streams.bench import workers
from streams.bench.workers import Stopwatch, Task, WorkerResult
from streams.telemetry.sample import Sample

_decode = msgspec.json.Decoder(Sample).decode
_encode = msgspec.json.Encoder().encode
_LATENESS = 2


class Totals(msgspec.Struct):
    """The sums of one scope in one second."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    unavailable: int = 0
    cache_hits: int = 0
    cache_lookups: int = 0
    latency_count: int = 0
    latency_ms: float = 0.0
    latency_bins: dict[int, int] = msgspec.field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        n = sample.n or 1
        self.requests += n
        if sample.outcome != "ok":
            self.errors += n
            self.timeouts += n * (sample.outcome == "timeout")
            self.unavailable += n * (sample.outcome == "unavailable")
        if sample.cache in ("hit", "miss"):
            self.cache_lookups += n
            self.cache_hits += n * (sample.cache == "hit")
        if sample.latency_ms is not None:
            self.latency_count += n
            self.latency_ms += sample.latency_ms * n
            at = math.ceil(math.log2(sample.latency_ms) * 32) if sample.latency_ms > 0 else 0
            self.latency_bins[at] = self.latency_bins.get(at, 0) + n


Key = tuple[str, str, str, int]


class Reduction:
    """The open seconds of one partition."""

    def __init__(self) -> None:
        self.open: dict[Key, Totals] = {}
        self._newest = 0

    def add(self, sample: Sample) -> list[tuple[Key, Totals]]:
        """Count a sample; returns the totals of the seconds that are over."""
        second = int(sample.ts)
        for flag, variant in [("", ""), *(sample.flags or {}).items()]:
            key = sample.service, flag, variant, second
            totals = self.open.get(key)
            if totals is None:
                totals = self.open[key] = Totals()
            totals.add(sample)
        if second <= self._newest:
            return []
        self._newest = second
        over = [(key, totals) for key, totals in self.open.items() if key[3] < second - _LATENESS]
        for key, _ in over:
            del self.open[key]
        return over


async def work(task: Task) -> WorkerResult:
    """Read `task.records` records after the warm-up."""
    app = faust.App(
        task.group,
        broker=f"kafka://{task.kafka}",
        store="memory://",
        consumer_auto_offset_reset="earliest",
        value_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    source = app.topic(task.topic, value_serializer="raw")
    sink = app.topic(f"{task.prefix}.partials", value_serializer="raw")
    reductions: dict[int, Reduction] = {}
    begun, done = asyncio.Event(), asyncio.Event()
    last = task.warm_up + (task.records or 0)
    count = 0

    @app.agent(source)  # type: ignore[untyped-decorator, unused-ignore]
    async def reduce(stream: Any) -> None:
        nonlocal count
        async for event in stream.events():
            reduction = reductions.setdefault(event.message.partition, Reduction())
            for key, totals in reduction.add(_decode(event.value)):
                await sink.send(value=_encode([key, totals]))
            count += 1
            if count == task.warm_up:
                begun.set()
            elif count == last:
                done.set()

    app.finalize()
    await app.start()
    await begun.wait()
    clock = Stopwatch(count)
    await done.wait()
    return clock.stop(count)


if __name__ == "__main__":
    workers.pin()
    given = workers.task()
    workers.main(work(given), uvloop=given.uvloop)
