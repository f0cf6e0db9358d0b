"""`flipback simulate`: what each trigger would do on made-up traffic, from seeded random numbers.

Requests of a service come as a Poisson process; each is bad (an error, a miss, a slow one: what the trigger is about)
with a given chance. Many copies of the service run side by side through the same windows and triggers as in production.
How late a regression is seen, how often it is missed, how often a healthy service fires: all of it is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int
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
    Cells,
    Scope,
)
from detectors.conditions.grammar import format_condition
from detectors.conditions.spec import RATIOS, TriggerSpec
from detectors.histogram import bins
from detectors.triggers.evaluator import Evaluator, measures, wants
from detectors.triggers.state_machine import State
from detectors.windows.store import WindowStore

STAGES = (0.1, 0.25, 0.5, 1.0)
"""Shares of the requests that a rollout gives to the new variant, one stage after the other."""

RUNS = 400
"""Copies of the service whose delay is measured."""

COPIES = 1000
"""Copies that run side by side when false alarms are counted: a month of one service is 43 minutes of them."""

HEALTHY = 0.005
"""Share of bad requests of a healthy service, unless it is given; less where the trigger's limit is near."""

_LIMIT_MS = 1000.0
"""Between good and bad latencies where the control gives the limit."""

_MINUTE = 60
_INSTANCES = ("a", "b")


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` requests a second, a share `split` with the new variant; `healthy` and `bad` are shares of bad ones."""

    rate: float
    split: float
    healthy: float
    bad: float


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """How late a regression is seen at a `split`, in seconds: None where too few runs saw it. `missed` is 0 to 1.

    `in_reach` is False where the regression cannot make the condition true: at that split the whole service, healthy
    requests and bad ones together, stays within the limit. A condition with `@variant` has all splits in reach.
    """

    split: float
    p50: float | None
    p95: float | None
    missed: float
    in_reach: bool = True


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger. False alarms are a month of 30 days; None where they were not counted.

    `skipped` says why nothing was simulated, empty where it was.
    """

    trigger: str
    flag: str
    condition: str
    scenario: Scenario | None = None
    delays: list[Delay] = []
    steady_a_month: float | None = None
    bursty_a_month: float | None = None
    skipped: str = ""


def simulate(
    specs: Sequence[TriggerSpec],
    *,
    rate: float,
    split: float,
    healthy: float | None,
    bad: float | None,
    days: float,
    seed: int,
    progress: Callable[[str], None] = lambda what: None,
) -> Iterator[Simulated]:
    """Simulate each trigger by itself. `days` of one service are simulated for the false alarms, 0 for none."""
    for number, spec in enumerate(specs):
        name = f"{spec.flag}/{spec.name}"
        limit = bad_limit(spec, healthy)
        described = Simulated(trigger=spec.name, flag=spec.flag, condition=format_condition(spec.condition))
        if limit is None:
            why = f"what is bad for {spec.condition.label} cannot be made up"
            yield msgspec.structs.replace(described, skipped=why)
            continue
        # What is compared with the control has no limit of its own to keep away from.
        usual = HEALTHY if spec.condition.proof else min(HEALTHY, limit / 4)
        share = usual if healthy is None else healthy
        scenario = Scenario(
            rate=rate, split=split, healthy=share, bad=min(2 * limit, (1 + limit) / 2) if bad is None else bad
        )
        chance = np.random.default_rng((seed, number))
        delays = []
        for part in sorted({split, *STAGES}):
            progress(f"{name}: delay at {part:.0%}")
            at = msgspec.structs.replace(scenario, split=part)
            within = _in_reach(spec, at, limit)
            delays.append(
                _delay(spec, at, chance)
                if within
                else Delay(split=part, p50=None, p95=None, missed=1.0, in_reach=False)
            )
        alarms: list[float | None] = [None, None]
        if days:
            for kind, bursty in enumerate((False, True)):
                progress(f"{name}: false alarms, {'bursty' if bursty else 'steady'}")
                alarms[kind] = false_alarms(spec, scenario, days, bursty, chance)
        yield msgspec.structs.replace(
            described, scenario=scenario, delays=delays, steady_a_month=alarms[0], bursty_a_month=alarms[1]
        )


def bad_limit(spec: TriggerSpec, healthy: float | None) -> float | None:
    """The share of bad requests at which the condition becomes true; None where that is not what it is about."""
    condition = spec.condition
    if condition.proof:
        # Worse than the control is any more than it has.
        return HEALTHY if healthy is None else healthy
    if condition.metric == "latency_quantile" and condition.quantile is not None:
        return 1 - condition.quantile if condition.op == ">" and condition.relative != "control" else None
    if condition.metric not in RATIOS:
        return None
    base = HEALTHY if healthy is None else healthy
    inverse = condition.metric in ("availability", "cache_hit_rate")
    if spec.control_scope is not None:
        value = condition.value * (1 - base if inverse else base)
    else:
        value = spec.threshold if spec.threshold is not None else math.nan
    share = 1 - value if inverse else value
    # A ratio that is bad when it is low is judged by `<`, one that is bad when it is high by `>`.
    return share if (condition.op == "<") is inverse and 0 < share < 1 else None


def _in_reach(spec: TriggerSpec, scenario: Scenario, limit: float) -> bool:
    """Can the regression make the condition true at this split, were there as many requests as one likes?"""
    if spec.condition.variant is not None:
        # A proof compares two arms: with everybody on the new one there is no other.
        return scenario.split < 1 or not spec.condition.proof
    return scenario.healthy * (1 - scenario.split) + scenario.bad * scenario.split > limit


def first_seen(found: Sequence[Simulated]) -> list[tuple[float, Simulated | None, Delay | None]]:
    """Of the triggers of one flag, which sees a regression first at each split; None where none has it in reach."""
    splits = sorted({delay.split for one in found for delay in one.delays})
    result: list[tuple[float, Simulated | None, Delay | None]] = []
    for split in splits:
        seen = [
            (one, delay)
            for one in found
            for delay in one.delays
            if delay.split == split and delay.in_reach and delay.p50 is not None
        ]
        best = min(seen, key=lambda pair: (pair[1].missed > 0.05, pair[1].p50), default=None)
        result.append((split, None, None) if best is None else (split, *best))
    return result


def _delay(spec: TriggerSpec, scenario: Scenario, chance: np.random.Generator) -> Delay:
    """The delay from a step of the treated requests to bad; copies that fired before it are left out."""
    condition = spec.condition
    warm_up = _window(spec, scenario) + 5
    horizon = max(600, 4 * (condition.over + condition.hold))
    run = _Simulation(spec, scenario, RUNS, chance)
    seen = np.full(RUNS, np.nan)
    early = np.zeros(RUNS, dtype=bool)
    for second in range(warm_up + horizon):
        bad = second >= warm_up
        fires = run.step(scenario.bad if bad else scenario.healthy, scenario.healthy)
        if not bad:
            early |= fires
            continue
        # What happened in second s is seen at its end.
        seen[fires & np.isnan(seen)] = second + 1 - warm_up
        if not np.isnan(seen[~early]).any():
            break
    delays = np.sort(seen[~early])
    return Delay(
        split=scenario.split,
        p50=_quantile(delays, 0.5),
        p95=_quantile(delays, 0.95),
        missed=float(np.isnan(delays).mean()) if len(delays) else 1.0,
    )


def false_alarms(
    spec: TriggerSpec, scenario: Scenario, days: float, bursty: bool, chance: np.random.Generator
) -> float:
    """How often a healthy service begins to fire, a month. Bursty: each minute has a share of its own, gamma, CV 1."""
    copies = COPIES
    seconds = max(math.ceil(days * 86_400 / copies), 10 * _MINUTE)
    # The beginning, in which windows fill, is none of the month.
    warm_up = _window(spec, scenario) + spec.condition.hold
    run = _Simulation(spec, scenario, copies, chance)
    share: float | Float = scenario.healthy
    before, alarms = np.zeros(copies, dtype=bool), 0
    for second in range(warm_up + seconds):
        if bursty and second % _MINUTE == 0:
            share = np.minimum(chance.gamma(1.0, scenario.healthy, copies), 1.0)
        fires = run.step(share, share)
        if second >= warm_up:
            alarms += int((fires & ~before).sum())
        before = fires
    return alarms * 30 * 86_400 / (copies * seconds)


def _window(spec: TriggerSpec, scenario: Scenario) -> int:
    """Seconds of the window that has samples enough."""
    rate = scenario.rate * (scenario.split if spec.condition.variant is not None else 1.0)
    return next((w for w in spec.windows if w * rate >= spec.min_samples), spec.windows[-1])


class _Simulation:
    """Copies of a service, second by second through windows and triggers."""

    def __init__(self, spec: TriggerSpec, scenario: Scenario, copies: int, chance: np.random.Generator) -> None:
        names = [f"{spec.service}-{number}" for number in range(copies)]
        # Not commanded and not latched: each evaluation says what the trigger says.
        self._specs = [replace(spec, service=name) for name in names]
        self._chance = chance
        self._copies = copies
        variants = spec.condition.variant is not None
        control = spec.control_variant or spec.safe_variant
        scopes: list[Scope] = []
        for name in names:
            if variants:
                scopes += [
                    Scope(spec.environment, name, spec.flag, str(spec.condition.variant)),
                    Scope(spec.environment, name, spec.flag, control),
                ]
            else:
                scopes.append(Scope(spec.environment, name))
        self._scopes = tuple(scopes)
        self._variants = variants
        self._scenario = scenario
        self._store = WindowStore(wants(self._specs), max_scopes=len(scopes), measures=measures(self._specs))
        self._evaluator = Evaluator(self._specs, self._store)
        self._second = 0
        timed = spec.condition.metric == "latency_quantile"
        limit = (spec.threshold or _LIMIT_MS) if timed else None
        self._latency_ms = None if limit is None else (limit / 2, limit * 2)

    def step(self, treated: float | Float, control: float | Float) -> NDArray[np.bool_]:
        """One more second in which these shares of the requests are bad; whose trigger fires at its end."""
        rate, split = self._scenario.rate, self._scenario.split
        n_treated = self._chance.poisson(rate * split, self._copies)
        n_control = self._chance.poisson(rate * (1 - split), self._copies)
        bad_treated = self._chance.binomial(n_treated, treated)
        bad_control = self._chance.binomial(n_control, control)
        if self._variants:
            n = np.stack([n_treated, n_control], axis=1).ravel()
            bad = np.stack([bad_treated, bad_control], axis=1).ravel()
        else:
            n, bad = n_treated + n_control, bad_treated + bad_control
        self._store.advance(self._second, self._cells(n.astype(np.int64), bad.astype(np.int64)))
        self._second += 1
        result = self._evaluator.evaluate(self._second)
        fires: NDArray[np.bool_] = result.state == State.FIRING
        return fires

    def _cells(self, n: Int, bad: Int) -> Cells:
        rows = np.flatnonzero(n)
        n, bad = n[rows], bad[rows]
        counts = np.zeros((len(rows), len(COUNTS)), dtype=np.int64)
        counts[:, REQUESTS] = n
        counts[:, ERRORS] = counts[:, TIMEOUTS] = counts[:, UNAVAILABLE] = bad
        counts[:, CACHE_LOOKUPS] = n
        counts[:, CACHE_HITS] = n - bad
        hist_cell = hist_bin = hist_count = np.zeros(0, dtype=np.int64)
        if self._latency_ms is not None:
            good_ms, bad_ms = self._latency_ms
            counts[:, LATENCY_COUNT] = n
            counts[:, LATENCY_US] = (1000 * (good_ms * (n - bad) + bad_ms * bad)).astype(np.int64)
            good_bin, bad_bin = bins(np.array([good_ms, bad_ms])).tolist()
            hist_cell = np.repeat(np.arange(len(rows)), 2)
            hist_bin = np.tile([good_bin, bad_bin], len(rows))
            hist_count = np.stack([n - bad, bad], axis=1).ravel()
            some = hist_count > 0
            hist_cell, hist_bin, hist_count = hist_cell[some], hist_bin[some], hist_count[some]
        none = np.zeros(0, dtype=np.int64)
        return Cells(
            scopes=self._scopes,
            scope=rows,
            second=np.full(len(rows), self._second),
            offset=np.zeros(len(rows), dtype=np.int64),
            counts=counts,
            hist_cell=hist_cell,
            hist_bin=hist_bin,
            hist_count=hist_count,
            instances=_INSTANCES,
            instance_cell=none,
            instance_id=none,
            instance_counts=np.zeros((0, len(COUNTS)), dtype=np.int64),
            measures=(),
            measure_cell=none,
            measure_id=none,
            measure_count=none,
            measure_sum=none,
        )


def _quantile(ordered: Float, q: float) -> float | None:
    """The smallest delay that a share `q` of the runs does not exceed; None where too many saw nothing."""
    if not len(ordered):
        return None
    value = float(ordered[min(math.ceil(q * len(ordered)) - 1, len(ordered) - 1)])
    return None if math.isnan(value) else value
