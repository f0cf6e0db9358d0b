"""`flipback simulate`: what each trigger would do on made-up traffic, from seeded random numbers.

Three figures are measured on many copies of the service: how late a regression is seen, how often it is missed, and how
often a healthy service fires. `agent.offline.simulated_service` makes the traffic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from agent.offline.simulated_service import Scenario, SimulatedService
from detectors.arrays import Float
from detectors.conditions.grammar import format_condition
from detectors.conditions.metric_table import METRIC_TABLE, RATIOS
from detectors.conditions.spec import TriggerSpec

STAGES = (0.1, 0.25, 0.5, 1.0)
"""Shares of the requests that a rollout gives to the new variant, one stage after the other."""

RUNS = 400
"""Copies of the service with which delays are measured."""

COPIES = 1000
"""Copies with which false alarms are counted: 43 minutes of them are a month of one service."""

HEALTHY = 0.005
"""Share of bad requests of a healthy service unless it is given; a quarter of the trigger's limit if that is less."""

_MINUTE = 60


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """How late a regression is seen at a `split`, in seconds; None if too few runs saw it. `missed` is 0 to 1.

    `in_reach` is False if the regression cannot make the condition true: at that split the whole service, with its
    healthy requests, stays within the limit. A condition with `@variant` has all splits in reach.
    """

    split: float
    p50: float | None
    p95: float | None
    missed: float
    in_reach: bool = True


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one trigger. False alarms are per month of 30 days, None if they were not counted.

    `skipped` is the reason why the trigger was not simulated, empty if it was.
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
    """Simulate each trigger by itself. False alarms are counted in `days` of one service; 0 counts none.

    `rate` is in requests a second; `split`, `healthy` and `bad` are shares, see `Scenario`.
    """
    for number, spec in enumerate(specs):
        name = f"{spec.flag}/{spec.name}"
        limit = bad_limit(spec, healthy)
        described = Simulated(trigger=spec.name, flag=spec.flag, condition=format_condition(spec.condition))
        if limit is None:
            why = f"what is bad for {spec.condition.label} cannot be made up"
            yield msgspec.structs.replace(described, skipped=why)
            continue
        # A proof against the control has no limit of its own from which the healthy share must keep away.
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
    """Return the share of bad requests at which the condition becomes true; None if it is not about such a share."""
    condition = spec.condition
    if condition.proof:
        # Any share above the control's is worse than the control.
        return HEALTHY if healthy is None else healthy
    if condition.metric == "latency_quantile" and condition.quantile is not None:
        return 1 - condition.quantile if condition.op == ">" and condition.relative != "control" else None
    if condition.metric not in RATIOS:
        return None
    base = HEALTHY if healthy is None else healthy
    inverse = METRIC_TABLE[condition.metric].good_is_high
    if spec.control_scope is not None:
        value = condition.value * (1 - base if inverse else base)
    else:
        value = spec.threshold if spec.threshold is not None else math.nan
    share = 1 - value if inverse else value
    # A ratio that is bad when low needs `<`, one that is bad when high needs `>`.
    return share if (condition.op == "<") is inverse and 0 < share < 1 else None


def _in_reach(spec: TriggerSpec, scenario: Scenario, limit: float) -> bool:
    """Can the regression make the condition true at this split, given enough requests?"""
    if spec.condition.variant is not None:
        # A proof compares two arms. If everybody has the new variant, there is only one.
        return scenario.split < 1 or not spec.condition.proof
    return scenario.healthy * (1 - scenario.split) + scenario.bad * scenario.split > limit


def first_seen(found: Sequence[Simulated]) -> list[tuple[float, Simulated | None, Delay | None]]:
    """Return for each split the trigger of one flag that sees a regression first, and its delay; None if none does."""
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
    """Measure the delay after the treated requests turn bad. Copies that fired before are left out."""
    condition = spec.condition
    warm_up = _window(spec, scenario) + 5
    horizon = max(600, 4 * (condition.over + condition.hold))
    run = SimulatedService(spec, scenario, RUNS, chance)
    seen = np.full(RUNS, np.nan)
    early = np.zeros(RUNS, dtype=bool)
    for second in range(warm_up + horizon):
        bad = second >= warm_up
        fires = run.step(scenario.bad if bad else scenario.healthy, scenario.healthy)
        if not bad:
            early |= fires
            continue
        # A second is judged at its end.
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
    """Return how often a month a healthy service begins to fire.

    `bursty`: each minute has its own share of bad requests, gamma-distributed with a coefficient of variation of 1.
    """
    copies = COPIES
    seconds = max(math.ceil(days * 86_400 / copies), 10 * _MINUTE)
    # The first seconds, in which the windows fill, do not count.
    warm_up = _window(spec, scenario) + spec.condition.hold
    run = SimulatedService(spec, scenario, copies, chance)
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
    """Return the seconds of the shortest window with enough samples."""
    rate = scenario.rate * (scenario.split if spec.condition.variant is not None else 1.0)
    return next((w for w in spec.windows if w * rate >= spec.min_samples), spec.windows[-1])


def _quantile(ordered: Float, q: float) -> float | None:
    """Return the smallest delay that a share `q` of the runs does not exceed; None if too many runs saw nothing."""
    if not len(ordered):
        return None
    value = float(ordered[min(math.ceil(q * len(ordered)) - 1, len(ordered) - 1)])
    return None if math.isnan(value) else value
