"""The evidence of a firing trigger: counts, sources, age; and whether it suffices to act (docs/promises.md, P2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from detectors.arrays import Int
from detectors.cells import COUNTS, LATE, REQUESTS, Scope
from detectors.conditions.metric_table import RATIOS
from detectors.conditions.spec import MIN_SAMPLES, TriggerSpec
from detectors.conditions.units import shown
from detectors.missing.missing_samples import asks_outcome, missing_of
from detectors.sequential.likelihood_ratio import PROOF
from detectors.triggers.evaluation import Evaluation, Tier
from detectors.windows.metrics import compute
from detectors.windows.overdue import limit_of
from detectors.windows.store import Want, WindowStore
from detectors.windows.unreadable import unreadable_of
from streams.monitor.observer import Exposure, Observer
from streams.monitor.shares import breaches, heard, is_ratio, samples_of, single_source, value_of, without

TierName = Literal["held", "fast", "proof"]

_NAMES: Mapping[Tier, TierName] = {Tier.HELD: "held", Tier.FAST: "fast", Tier.PROOF: "proof"}

FAST_LEAST = 5
"""Requests of the other instances that suffice to show whether they fail too. The null rate is 10 % or more; if half of
five requests fail, the chance that none of them does is 3 %."""

FRESH_SECONDS = 15
"""Length of the newest part of the evidence, which must still breach after a gap, a restart or a change of the flag."""


@dataclass(frozen=True, slots=True)
class FiringEvidence:
    """A trigger that fires at evaluation `t`. Values are in the metric's unit, times are Unix seconds of event time.

    `window` is [from, to). `sources` is the number of instances in it, and `instances` their names, the busiest first.
    `age` is how many seconds ago the scope's newest second ended. `fresh` says whether the newest `fresh_seconds`
    breach by themselves. `obstacle` says why nothing may be done on this evidence: it is old, the breach depends on one
    instance of several, or the control breaches too; None if nothing stands in the way. `proof` is how much worse the
    flag's other variants are than its safe one, in nats (detectors.sequential.likelihood_ratio); None if they cannot be
    compared. `exposure` returns the exposure of the flag in the trigger's service, which a flip must bring down, and
    `variants` the counts of each variant of the flag. Call them while the second is the newest; they are computed only
    when called, because that takes half a millisecond and a trigger that fires for days needs them once.

    `tier` says what fired: a held condition, the fast tier or a proof. The evidence of the latter two was gathered
    since second `since`; its e-value is exp(`evidence`), and it fires at exp(`bound`). `null_rate` (0..1) is the share
    of bad requests that the fast tier takes for healthy. Window, counts and instances are those of the newest seconds
    of the evidence; for an absence they are those of the control.
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
    variants: Callable[[], dict[str, Int]] | None = None
    tier: TierName = "held"
    evidence: float | None = None
    bound: float | None = None
    null_rate: float | None = None
    since: float | None = None


def fresh_wants(specs: Sequence[TriggerSpec]) -> list[Want]:
    """The windows that `EvidenceBuilder` needs besides those of the triggers."""
    return [Want(s.scope, FRESH_SECONDS, s.condition.metric == "latency_quantile") for s in specs]


class EvidenceBuilder:
    """Builds the evidence of the triggers that fire; they are few, so it loops over them and their instances."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore, observer: Observer) -> None:
        self._specs = specs
        self._store = store
        self._observer = observer
        self._unread = store.unread.window(FRESH_SECONDS)

    def evidence(self, row: int, t: int, result: Evaluation, now: float) -> FiringEvidence | None:
        """The evidence of trigger `row`, firing at `t`; `now` is the clock.

        None while too few requests of other instances have come to know whether more than one source shows the breach:
        the first second of a fast alarm may be too short for that.
        """
        spec, tier = self._specs[row], Tier(int(result.tier[row]))
        # The evidence of an absence is that of the control: the variant itself has no requests.
        scope = spec.control_scope or spec.scope if spec.condition.metric == "absence" else spec.scope
        over = int(result.own.window[row]) if tier == Tier.HELD else spec.condition.over
        over = max(over, FRESH_SECONDS) if tier == Tier.FAST else over
        gathered, since = result.gathered, int(result.gathered.since[row])
        begin = t - over if tier == Tier.HELD else min(max(t - over, since), t - 1)
        if tier == Tier.HELD:
            counts = self._store.window(over).sums[: len(COUNTS), self._store.row(scope, over)]
        else:
            counts = self._store.counts(scope, over, begin)
        instances = self._store.instances(scope, over, begin)
        left_out, healthy, apart = result.left_out(row), 0, None
        if tier != Tier.FAST:
            whole, counts = counts, without(counts, instances, left_out)
            apart = whole - counts if left_out else None
            instances = {name: own for name, own in instances.items() if name not in left_out}
            healthy = result.counted_as_healthy(row)
        threshold, null = float(result.threshold[row]), _number(gathered.null[row])
        value, limit, least = float(result.value[row]), threshold, max(spec.least_samples, 1)
        if tier == Tier.FAST and null is not None:
            value = found if (found := value_of(spec, counts)) is not None else value
            limit, least = _as_metric(spec, null, threshold), FAST_LEAST
            if self._early(spec, scope, counts, instances, t):
                return None
        elif tier == Tier.PROOF:
            least = MIN_SAMPLES
        proof = self._observer.proof(spec)
        newest = self._newest(scope)
        age = math.inf if newest is None else max(0.0, now - (newest + 1))
        of_control = spec.condition.relative == "control" and spec.condition.metric != "absence"
        return FiringEvidence(
            spec=spec,
            t=t,
            window=(float(begin), float(t)),
            value=value,
            threshold=threshold,
            control=threshold / spec.condition.value if of_control else None,
            samples=int(result.samples[row]) if tier != Tier.FAST else samples_of(spec, counts),
            counts=dict(zip(COUNTS, counts.tolist(), strict=True)),
            sources=len([name for name, own in instances.items() if name and heard(own)]) or 1,
            instances=sorted(instances, key=lambda name: (-int(instances[name][REQUESTS]), name)),
            age=age,
            first_true_at=float(result.first_true_at[row] if tier != Tier.FAST else since),
            fresh=spec.condition.metric == "absence" or self._fresh(spec, limit, left_out, worst=healthy > 0),
            obstacle=_stale(age)
            or single_source(spec, counts, instances, limit, least, healthy=healthy, apart=apart)
            or self._shared(spec, limit, proof, begin if tier == Tier.FAST else None, left_out),
            proof=proof,
            exposure=partial(self._observer.exposure, spec.environment, spec.service, spec.flag),
            variants=partial(self._observer.by_variant, spec.environment, spec.service, spec.flag, since=begin),
            tier=_NAMES[tier],
            evidence=None if tier == Tier.HELD else _number(gathered.evidence[row]),
            bound=None if tier == Tier.HELD else _number(gathered.bound[row]),
            null_rate=null if tier == Tier.FAST else None,
            since=None if tier == Tier.HELD else float(since),
        )

    def _newest(self, scope: Scope) -> int | None:
        """The newest second of a scope with a sample that was not late: late samples alone show nothing new."""
        newest, end = self._store.newest(scope), self._store.end or 0
        if newest is None:
            return None
        since, rows = end - self._store.display, np.array([self._store.slot(scope)], dtype=np.int64)
        requests, late = (self._store.by_second.read(rows, column, since, end)[:, 0] for column in (REQUESTS, LATE))
        if newest < since or requests[newest - since] or not late[newest - since]:
            return newest
        in_time = np.flatnonzero(requests)
        return since + int(in_time[-1]) if len(in_time) else since

    def _shared(
        self,
        spec: TriggerSpec,
        threshold: float,
        proof: float | None,
        begin: int | None,
        left_out: Collection[str],
    ) -> str | None:
        """Why the release is not to blame: the control breaches too, and the other variants are not proven to be worse.

        None if that is not so. `begin` is the first second of a fast alarm's evidence: the control is judged on the
        same seconds, because its window contains the time before them. The instances `left_out` are left out of the
        control too.
        """
        if not spec.guard or spec.condition.variant is not None or (proof is not None and proof >= PROOF):
            return None
        if (begin is not None or left_out) and is_ratio(spec):
            control = Scope(spec.environment, spec.service, spec.flag, spec.safe_variant)
            counts = self._store.counts(control, self._store.display, begin or 0)
            if begin is None:
                counts = without(counts, self._store.instances(control, self._store.display), left_out)
            samples, least = samples_of(spec, counts), MIN_SAMPLES if begin is None else FAST_LEAST
            value = found if (found := value_of(spec, counts)) is not None else math.nan
        else:
            measured = self._observer.control(spec)
            if measured is None:
                return None
            value, samples, least = measured.value, measured.samples, MIN_SAMPLES
        if samples < least or not breaches(spec, value, threshold):
            return None
        return (
            f"the control breaches too: {spec.condition.label}@{spec.safe_variant} is "
            f"{shown(spec.condition.label, value)}, limit {shown(spec.condition.label, threshold)}; what hits both "
            "variants is no release's"
        )

    def _early(self, spec: TriggerSpec, scope: Scope, counts: Int, instances: Mapping[str, Int], t: int) -> bool:
        """Does nearly all of the evidence come from one instance, although others had requests a little earlier?"""
        whole = samples_of(spec, counts)
        alone = [name for name, own in instances.items() if whole - samples_of(spec, own) < FAST_LEAST]
        if not alone:
            return False
        before = self._store.instances(scope, FRESH_SECONDS)
        earlier = {name: samples_of(spec, own) for name, own in before.items()}
        total = sum(earlier.values())
        return any(total - earlier[name] >= FAST_LEAST for name in alone if name in earlier)

    def _fresh(self, spec: TriggerSpec, threshold: float, left_out: Collection[str], *, worst: bool) -> bool:
        """Do the newest seconds breach by themselves, however few samples they have?

        The instances `left_out` do not count. With `worst`, missing samples are counted as healthy requests.
        """
        condition = spec.condition
        if (left_out or worst) and is_ratio(spec):
            counts = self._store.counts(spec.scope, FRESH_SECONDS)
            counts = without(counts, self._store.instances(spec.scope, FRESH_SECONDS), left_out)
            outcome = asks_outcome(condition.metric)
            place = self._store.unread.place(spec.scope, unreadable_of(condition))
            unread = self._unread.read(np.array([place], dtype=np.int64))
            missing = missing_of(lambda column: counts[column : column + 1], outcome=outcome, unread=unread).lost
            found = value_of(spec, counts, int(missing[0]) if worst else 0)
            return found is not None and breaches(spec, found, threshold)
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
        return bool(samples[0] or condition.metric == "throughput") and breaches(spec, float(value[0]), threshold)


def _stale(age: float) -> str | None:
    if age <= FRESH_SECONDS:
        return None
    return f"the newest sample is {age:.0f} s old, acted upon are {FRESH_SECONDS} s at most"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _as_metric(spec: TriggerSpec, bad: float, threshold: float) -> float:
    """A share of bad requests as a value of the metric; for a latency the threshold, above which requests are bad."""
    if spec.condition.metric not in RATIOS:
        return threshold
    return bad if spec.condition.op == ">" else 1 - bad
