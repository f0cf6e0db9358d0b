"""What stands behind a firing trigger: counts, sources, age; and whether it is enough to act upon (promise P2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from detectors.blame import PROOF
from detectors.cells import (
    CACHE_HITS,
    CACHE_LOOKUPS,
    COUNTS,
    ERRORS,
    LATENCY_COUNT,
    LATENCY_US,
    REQUESTS,
    TIMEOUTS,
    UNAVAILABLE,
    Int,
)
from detectors.evaluate import Evaluation
from detectors.metrics import compute
from detectors.overdue import limit_of
from detectors.spec import MIN_SAMPLES, Metric, TriggerSpec
from detectors.windows import Want, WindowStore
from streams.observer import Exposure, Observer

FRESH_SECONDS = 15
"""The newest part of the evidence, in which a breach must still show after a gap, a restart or a change of the flag."""

_PARTS: Mapping[Metric, tuple[int, int, bool]] = {
    "error_rate": (ERRORS, REQUESTS, False),
    "timeout_rate": (TIMEOUTS, REQUESTS, False),
    "availability": (UNAVAILABLE, REQUESTS, True),
    "cache_hit_rate": (CACHE_HITS, CACHE_LOOKUPS, False),
    "latency_mean": (LATENCY_US, LATENCY_COUNT, False),
}
"""Numerator, denominator and whether the metric is one minus their ratio, where it is a ratio of counts."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A trigger that fires at evaluation `t`. Values are in the metric's unit, times Unix seconds of event time.

    `window` is [from, to); `sources` counts the instances in it and `instances` names them, the busiest first; `age`
    is how many seconds ago the scope's newest second ended. `fresh` says whether the newest `fresh_seconds` breach by
    themselves; `obstacle` says why nothing may be done on this evidence: it is old, the breach rests on one instance of
    several, or the control breaches too. None where it is enough. `proof` says how much worse the flag's other variants
    are than its safe one, in nats (detectors.blame); None where nothing can be compared.

    `exposure` tells, while the second is the newest, that of the trigger's flag in its service, which a flip must bring
    down. It is computed when asked for: it takes half a millisecond, and of a trigger that fires for days it is wanted
    once.
    """

    spec: TriggerSpec
    t: int
    window: tuple[float, float]
    value: float
    threshold: float
    control: float | None
    samples: int
    counts: Mapping[str, int]
    sources: int
    instances: Sequence[str]
    age: float
    first_true_at: float
    fresh: bool
    obstacle: str | None
    fresh_seconds: int = FRESH_SECONDS
    proof: float | None = None
    exposure: Callable[[], Exposure] | None = None


def fresh_wants(specs: Sequence[TriggerSpec]) -> list[Want]:
    """The windows that `Gather` needs beside those of the triggers."""
    return [Want(s.scope, FRESH_SECONDS, s.condition.metric == "latency_quantile") for s in specs]


class Gather:
    """Puts evidence together, for the few triggers that fire: it loops over them and their instances."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore, observer: Observer) -> None:
        self._specs = specs
        self._store = store
        self._observer = observer

    def evidence(self, row: int, t: int, result: Evaluation, now: float) -> Evidence:
        """The evidence of trigger `row`, firing at `t`; `now` is the clock."""
        spec = self._specs[row]
        over = spec.condition.over
        window = self._store.window(over)
        slot = self._store.row(spec.scope, over)
        counts = window.sums[: len(COUNTS), slot]
        instances = self._store.instances(spec.scope, over)
        busiest = sorted(instances, key=lambda name: (-int(instances[name][REQUESTS]), name))
        threshold = float(result.threshold[row])
        control = spec.condition.relative == "control"
        newest = self._store.newest(spec.scope)
        age = math.inf if newest is None else max(0.0, now - (newest + 1))
        proof = self._observer.proof(spec)
        return Evidence(
            spec=spec,
            t=t,
            window=(float(t - over), float(t)),
            value=float(result.value[row]),
            threshold=threshold,
            control=threshold / spec.condition.value if control else None,
            samples=int(result.samples[row]),
            counts=dict(zip(COUNTS, counts.tolist(), strict=True)),
            sources=len([name for name in instances if name]) or 1,
            instances=busiest,
            age=age,
            first_true_at=float(result.first_true_at[row]),
            fresh=self._fresh(spec, threshold),
            obstacle=_stale(age)
            or _single_source(spec, counts, instances, threshold)
            or self._shared(spec, threshold, proof),
            proof=proof,
            exposure=partial(self._observer.exposure, spec.environment, spec.service, spec.flag),
        )

    def _shared(self, spec: TriggerSpec, threshold: float, proof: float | None) -> str | None:
        """Does the control breach too, and are the treated requests not proven to be worse? Then it is no release's."""
        if not spec.guard or spec.condition.variant is not None or (proof is not None and proof >= PROOF):
            return None
        control = self._observer.control(spec)
        if control is None or control.samples < MIN_SAMPLES or not _breaches(spec, control.value, threshold):
            return None
        return (
            f"the control breaches too: {spec.condition.label}@{spec.safe_variant} is {control.value:.6g}, limit "
            f"{threshold:.6g}; what hits both variants is no release's"
        )

    def _fresh(self, spec: TriggerSpec, threshold: float) -> bool:
        """Do the newest seconds breach by themselves? Asked of whatever samples they have."""
        condition = spec.condition
        rows = np.array([self._store.row(spec.scope, FRESH_SECONDS)], dtype=np.int64)
        value, samples = compute(
            self._store,
            FRESH_SECONDS,
            condition.metric,
            rows,
            quantile=condition.quantile or 0.5,
            measure=condition.measure,
            limit_ms=limit_of(spec),
        )
        return bool(samples[0] or condition.metric == "throughput") and _breaches(spec, float(value[0]), threshold)


def _breaches(spec: TriggerSpec, value: float, threshold: float) -> bool:
    return value > threshold if spec.condition.op == ">" else value < threshold


def _stale(age: float) -> str | None:
    if age <= FRESH_SECONDS:
        return None
    return f"the newest sample is {age:.0f} s old, acted upon are {FRESH_SECONDS} s at most"


def _single_source(spec: TriggerSpec, counts: Int, instances: Mapping[str, Int], threshold: float) -> str | None:
    """Without which one instance would the others, having samples enough to judge, not breach?"""
    parts = _PARTS.get(spec.condition.metric)
    if parts is None or len(instances) < 2:
        return None
    part, whole, inverse = parts
    scale = 1000 if part == LATENCY_US else 1
    for name, own in sorted(instances.items()):
        rest = int(counts[whole] - own[whole])
        if rest < max(spec.min_samples, 1):
            continue
        share = int(counts[part] - own[part]) / (rest * scale)
        value = 1 - share if inverse else share
        if not _breaches(spec, value, threshold):
            kind = spec.condition.label
            return f"only instance {name!r} breaches: {kind} of the others is {value:.6g}, limit {threshold:.6g}"
    return None
