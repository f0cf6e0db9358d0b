"""`flipback simulate`: what each trigger would do on made-up traffic, from seeded random numbers.

Requests of a service come as a Poisson process; each is bad (an error, a miss, a slow one: what the trigger is about)
with a given chance. Many copies of the service run side by side through the same windows and triggers as in production.
How late a regression is seen, how often it is missed, how often a healthy service fires: all of it is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from agent.offline.simulated_service import Scenario, SimulatedService
from detectors.arrays import Float
from detectors.conditions.grammar import format_condition
from detectors.conditions.spec import RATIOS, TriggerSpec

STAGES = (0.1, 0.25, 0.5, 1.0)
"""Shares of the requests that a rollout gives to the new variant, one stage after the other."""

RUNS = 400
"""Copies of the service whose delay is measured."""

COPIES = 1000
"""Copies that run side by side when false alarms are counted: a month of one service is 43 minutes of them."""

HEALTHY = 0.005
"""Share of bad requests of a healthy service, unless it is given; less where the trigger's limit is near."""

_MINUTE = 60


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
    run = SimulatedService(spec, scenario, RUNS, chance)
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
    """Seconds of the window that has samples enough."""
    rate = scenario.rate * (scenario.split if spec.condition.variant is not None else 1.0)
    return next((w for w in spec.windows if w * rate >= spec.min_samples), spec.windows[-1])


def _quantile(ordered: Float, q: float) -> float | None:
    """The smallest delay that a share `q` of the runs does not exceed; None where too many saw nothing."""
    if not len(ordered):
        return None
    value = float(ordered[min(math.ceil(q * len(ordered)) - 1, len(ordered) - 1)])
    return None if math.isnan(value) else value
