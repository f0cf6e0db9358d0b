"""Measures the evaluation of 10,000 scopes with all their triggers: time and memory, in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from agent.bench.measures import Measure, figure, kib_of, spread
from agent.config.min_samples import with_auto
from agent.config.triggers import fast_by_default
from agent.errors import FlipbackError
from detectors.cells import COUNTS, Cells, Scope
from detectors.conditions.grammar import parse
from detectors.conditions.metric_table import metrics_of
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import BINS, bins
from detectors.triggers.evaluator import Evaluator
from detectors.triggers.wants import measures, wants
from detectors.windows.store import WindowStore
from streams.monitor.evidence import fresh_wants
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from streams.partials.packing import pack
from streams.partials.partitions import split
from streams.partials.record import VERSION, Partial, encode

SCOPES = 10_000
TRIGGERS = (
    "error_rate@{0} > 2% over 60s for 2m",
    "timeout_rate@{0} > 1% over 60s for 2m",
    "availability@{0} < 99% over 60s for 30s",
    metrics_of("cache")[0] + "@{0} < 40% over 60s for 5m",
    "throughput@{0} < 1/s over 60s for 1m",
    "latency_mean@{0} > 100ms over 60s for 1m",
    "latency_p95@{0} > 2s over 60s for 1m",
    "latency_p99@{0} > 5s over 60s for 2m",
)
COMPARED = ("error_rate@{0} > control", "latency_p95@{0} > control", "absence@{0}")
"""Further triggers of the variant that is not the control."""
REQUESTS = 10
"""Requests of each scope in each second."""
INSTANCES = 3
WINDOW = 60
MAX_WINDOW = 600
HELD, EVERYTHING = "held", "everything"
MEASURED = 100
SHARD_SECONDS = 20
_TELEMETRY = "requests"
_TIMEOUT = 300


class EvaluationTimes(msgspec.Struct, frozen=True):
    """Milliseconds of each evaluation and of each second of a shard; bytes for all scopes.

    `memory` is the growth of the process's resident memory, `counted` the size of the arrays.
    """

    evaluations_ms: list[float]
    memory: int
    counted: int
    shard_ms: list[float]


def evaluate() -> Iterator[Measure]:
    """Measure in separate processes, first held triggers with plain windows, then those of every detector."""
    held, everything = _measured(HELD), _measured(EVERYTHING)
    common = (
        f"{SCOPES:,} scopes x {len(TRIGGERS)} triggers, windows of {WINDOW} s full, quantiles of two latencies, "
        f"{REQUESTS} requests a scope and second from {INSTANCES} instances"
    )
    more = (
        f"{common}; besides, error and timeout rates and availability fast, half of the scopes compared with the other "
        f"half by {len(COMPARED)} more triggers each, and windows of up to {MAX_WINDOW} s where samples are few"
    )
    for suffix, result, shape in (("", held, common), ("_all", everything, more)):
        yield spread(
            f"evaluate{suffix}",
            result.evaluations_ms,
            "ms",
            "a second added to all windows and one taken away, all triggers evaluated; "
            f"{shape}; wall clock, one process",
        )
        yield figure(
            f"evaluate{suffix}_memory",
            result.memory / SCOPES / 1000,
            "kB/scope",
            f"growth of the resident memory from empty to full windows and triggers, with the {WINDOW} s windows and "
            f"the newest 15 s that evidence needs; {shape}; arrays alone, pages never touched included: "
            f"{result.counted / SCOPES / 1000:.3g} kB",
        )
    yield spread(
        "monitor_second",
        everything.shard_ms,
        "ms",
        f"all of stage 2 for one second in one shard: partials of 8 source partitions decoded, merged and evaluated, "
        f"the health record made and encoded; {more}",
    )


def _measured(what: str) -> EvaluationTimes:
    command = [sys.executable, "-m", "agent.bench.evaluate", what]
    done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)  # noqa: S603  # our own module
    if done.returncode:
        raise FlipbackError(f"bench: the evaluation failed: {done.stderr.decode(errors='replace')[-1500:]}")
    return msgspec.json.decode(done.stdout, type=EvaluationTimes)


def specs(what: str) -> list[TriggerSpec]:
    """The triggers of 10,000 scopes: two variants of a flag in each of 5,000 services."""
    found = []
    for scope in scopes():
        compared = COMPARED if what == EVERYTHING and scope.variant != "off" else ()
        for number, text in enumerate((*TRIGGERS, *compared)):
            condition = parse(text.format(scope.variant))
            spec = TriggerSpec(
                name=f"{scope.variant}-{number}",
                flag=scope.flag,
                environment=scope.environment,
                service=scope.service,
                condition=condition,
                safe_variant="off",
                min_samples=condition.default_min_samples,
                control_variant="off",
                fast=what == EVERYTHING and fast_by_default(condition),
            )
            found.append(with_auto(spec, None, MAX_WINDOW) if what == EVERYTHING else spec)
    return found


def scopes() -> tuple[Scope, ...]:
    names = (f"{number:04}" for number in range(SCOPES // 2))
    return tuple(Scope("production", f"service-{n}", f"release-{n}", v) for n in names for v in ("on", "off"))


def second_of(second: int, table: tuple[Scope, ...], requests: int, numbers: np.random.Generator) -> Cells:
    """One second of every scope: `requests` requests, 1 % of them errors, log-normal latencies."""
    n = len(table)
    cell = np.repeat(np.arange(n), requests)
    latency_ms = numbers.lognormal(3.4, 0.6, n * requests)
    error = numbers.random(n * requests) < 0.01
    hit = numbers.random(n * requests) < 0.7
    instance = numbers.integers(0, INSTANCES, n * requests)
    row, of = np.unique(cell * INSTANCES + instance, return_inverse=True)
    rows = {
        "requests": np.ones(n * requests),
        "errors": error,
        "unavailable": error,
        "cache_hits": hit,
        "cache_lookups": np.ones(n * requests),
        "latency_count": np.ones(n * requests),
        "latency_us": np.rint(latency_ms * 1000),
    }
    none = np.zeros(n * requests)
    per_instance = np.stack(
        [np.bincount(of, weights=rows.get(name, none), minlength=len(row)) for name in COUNTS], axis=1
    ).astype(np.int64)
    per_cell = np.zeros((n, len(COUNTS)), dtype=np.int64)
    np.add.at(per_cell, row // INSTANCES, per_instance)
    hist, hist_count = np.unique(cell * BINS + bins(latency_ms), return_counts=True)
    nothing = np.zeros(0, dtype=np.int64)
    return Cells(
        scopes=table,
        scope=np.arange(n),
        second=np.full(n, second),
        offset=np.full(n, second),
        counts=per_cell,
        hist_cell=hist // BINS,
        hist_bin=hist % BINS,
        hist_count=hist_count,
        instances=tuple(f"pod-{number}" for number in range(INSTANCES)),
        instance_cell=row // INSTANCES,
        instance_id=row % INSTANCES,
        instance_counts=per_instance,
        measures=(),
        measure_cell=nothing,
        measure_id=nothing,
        measure_count=nothing,
        measure_sum=nothing,
    )


def _evaluations(triggers: Sequence[TriggerSpec]) -> tuple[list[float], int, int]:
    """Milliseconds of each evaluation on full windows, growth of the resident memory, and size of the arrays."""
    numbers, table = np.random.default_rng(20240501), scopes()
    # Generate one second before, so that memory that the generator keeps is no part of the growth.
    second_of(0, table, REQUESTS, numbers)
    before = kib_of(os.getpid(), "VmRSS")
    store = WindowStore([*wants(triggers), *fresh_wants(triggers)], max_scopes=SCOPES, measures=measures(triggers))
    evaluator = Evaluator(triggers, store)
    took = []
    memory = 0
    for second in range(1_000, 1_000 + WINDOW + 10 + MEASURED):
        cells = second_of(second, table, REQUESTS, numbers)
        start = time.perf_counter()
        store.advance(second, cells)
        evaluator.evaluate(second + 1)
        took.append(1000 * (time.perf_counter() - start))
        del cells
        if len(took) == WINDOW + 10:
            memory = 1024 * (kib_of(os.getpid(), "VmRSS") - before)
    return took[-MEASURED:], memory, store.nbytes


def _shard(triggers: Sequence[TriggerSpec]) -> list[float]:
    """Milliseconds that a shard with 8 source partitions takes for each second."""
    sources = 8
    numbers, table = np.random.default_rng(20240502), scopes()
    shard = Shard(
        0,
        triggers,
        [_TELEMETRY],
        ShardSettings(max_scopes=SCOPES, evaluate_every=1, catching_up_after=15.0),
    )
    took = []
    for second in range(1_000, 1_000 + 5 + SHARD_SECONDS):
        records = []
        for source in range(sources):
            # Each source partition has an equal share of the scope's requests, but at least one request.
            cells = second_of(second, table, max(1, REQUESTS // sources), numbers)
            parts = [part for _, part in split(cells, 1)]
            records += [
                encode(_partial(source, sources, part, second + 1.0 if part is parts[-1] else None)) for part in parts
            ]
        start = time.perf_counter()
        for record in records:
            for done in shard.take(record, second + 3.0):
                if done.health is not None:
                    msgspec.json.encode(done.health)
        took.append(1000 * (time.perf_counter() - start))
    return took[5:]


def _partial(source: int, sources: int, cells: Cells, watermark: float | None) -> Partial:
    return Partial(
        version=VERSION,
        topic=_TELEMETRY,
        partition=source,
        partitions=sources,
        owner="bench",
        sent_at=0.0,
        watermark=watermark,
        caught_up=True,
        overflow=0,
        scopes=[(s.environment, s.service, s.flag, s.variant) for s in cells.scopes],
        instances=list(cells.instances),
        measures=[],
        columns=pack(cells),
    )


if __name__ == "__main__":
    _what = sys.argv[1]
    _triggers = specs(_what)
    _took, _memory, _counted = _evaluations(_triggers)
    _shards = _shard(_triggers) if _what == EVERYTHING else []
    sys.stdout.buffer.write(msgspec.json.encode(EvaluationTimes(_took, _memory, _counted, _shards)))
