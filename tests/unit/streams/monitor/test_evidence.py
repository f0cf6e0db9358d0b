"""The evidence of a trigger that fires by its fast tier, by proof or by absence, and when it suffices to act."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec
from detectors.triggers.evaluation import Tier
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.evidence import _NAMES, FRESH_SECONDS, FiringEvidence
from streams.monitor.shard import Shard
from tests.support.cells import Cell, cells
from tests.unit.streams.monitor.test_shard import ON, SERVICE, T, said, shard, spec

OFF = Scope("production", "shop", "new", "off")
FAST = replace(spec("error_rate > 2% over 60s for 2m"), fast=True, max_window=600, min_samples=900)
Counts = dict[str, tuple[int, int]]
"""Requests and errors of each instance in a second."""


def seen(target: Shard, seconds: Sequence[Counts], scope: Scope = SERVICE, begin: int = T) -> Iterator[EvaluatedSecond]:
    """Feed seconds as in live traffic."""
    for at, counts in enumerate(seconds, begin):
        instances = {name: {"requests": n, "errors": bad} for name, (n, bad) in counts.items()}
        total = {key: sum(own[key] for own in instances.values()) for key in ("requests", "errors")}
        block = cells(at, (scope, Cell(total, instances=instances)))
        yield from target.take(said(at + 1.0, block), at + 3.0)


def first(seconds: Sequence[EvaluatedSecond]) -> FiringEvidence:
    return next(evidence for second in seconds for evidence in second.firing)


def even(errors: int, n: int = 3) -> Counts:
    """50 requests/s on n instances, each with the same number of errors."""
    return {f"i-{k}": (51 // n, errors // n) for k in range(n)}


GOOD, BAD = even(0), even(27)


def test_a_fast_alarm_says_its_tier_its_evidence_and_since_when() -> None:
    seconds = list(seen(shard(FAST), [GOOD] * 60 + [BAD] * 3))
    evidence = first(seconds)
    assert evidence.t - T <= 62
    assert evidence.tier == "fast"
    assert evidence.obstacle is None
    assert evidence.evidence is not None
    assert evidence.bound is not None
    assert evidence.evidence >= evidence.bound
    assert (evidence.null_rate, evidence.since, evidence.first_true_at) == (0.1, T + 60.0, T + 60.0)
    assert evidence.window == (T + 60.0, float(evidence.t))
    assert evidence.counts["errors"] == 27 * (evidence.t - T - 60)
    assert evidence.samples == evidence.counts["requests"] == 51 * (evidence.t - T - 60)
    assert evidence.value == pytest.approx(27 / 51)
    assert (evidence.threshold, evidence.sources, evidence.fresh) == (0.02, 3, False)


def test_what_is_held_has_no_evidence_of_its_own() -> None:
    rule = spec("error_rate > 20% over 10s for 5s")
    evidence = first(list(seen(shard(rule), [BAD] * 20)))
    assert (evidence.tier, evidence.evidence, evidence.bound, evidence.null_rate, evidence.since) == (
        "held", None, None, None, None,
    )  # fmt: skip


def test_an_alarm_of_one_instance_of_several_is_held_back_by_the_seconds_of_its_own_evidence() -> None:
    liar = {"i-0": (100, 100), "i-1": (17, 0), "i-2": (17, 0)}
    seconds = list(seen(shard(FAST), [GOOD] * 60 + [liar] * 3))
    evidence = first(seconds)
    assert evidence.tier == "fast"
    assert evidence.obstacle == "only instance 'i-0' breaches: error_rate of the others is 0 %, limit 10 %"


def test_an_honest_alarm_is_not_held_back_by_the_good_seconds_before_it() -> None:
    # After the first bad second, less than 2 % of the last minute without i-0 have failed.
    few = {"i-0": (30, 25), "i-1": (10, 9), "i-2": (11, 9)}
    evidence = first(list(seen(shard(FAST), [GOOD] * 300 + [few])))
    assert (evidence.tier, evidence.obstacle) == ("fast", None)


def test_until_the_others_had_requests_too_an_alarm_waits() -> None:
    lone: Counts = {"i-0": (60, 60)}
    seconds = list(seen(shard(FAST), [GOOD] * 60 + [lone, lone] + [{"i-0": (60, 60), "i-1": (9, 0)}] * 2))
    fired = [second for second in seconds if second.time > T + 60]
    assert [bool(second.firing) for second in fired] == [False, False, True, True]
    assert first(fired).obstacle is not None


def test_a_service_of_one_instance_is_acted_upon_at_once() -> None:
    evidence = first(list(seen(shard(FAST), [even(0, 1)] * 60 + [even(27, 1)] * 2)))
    assert (evidence.tier, evidence.obstacle, evidence.sources) == ("fast", None, 1)


def test_a_widened_window_is_that_of_the_evidence() -> None:
    rule = replace(spec("error_rate > 2% over 10s for 5s"), min_samples=900, max_window=60)
    evidence = first(list(seen(shard(rule), [even(6)] * 60)))
    assert (evidence.tier, evidence.samples) == ("held", evidence.counts["requests"])
    assert evidence.window[1] - evidence.window[0] == 20


def test_a_change_of_the_flag_begins_the_evidence_anew() -> None:
    target = shard(FAST)
    list(seen(target, [GOOD] * 60 + [BAD] * 5))
    target.flag_changed("production", "new", T + 69.5, None)
    after = list(seen(target, [BAD] * 10, begin=T + 65))
    assert not any(evidence.tier == "fast" for second in after[:5] for evidence in second.firing)
    assert first(after).since == T + 70


def arms(target: Shard, seconds: int, on: Cell | None, off: Cell, begin: int) -> list[EvaluatedSecond]:
    rows = [(scope, cell) for scope, cell in ((ON, on), (OFF, off)) if cell is not None]
    return [
        found
        for at in range(begin, begin + seconds)
        for found in target.take(said(at + 1.0, cells(at, *rows)), at + 3.0)
    ]


def cell(requests: int, errors: int = 0, instances: int = 2) -> Cell:
    each = {"requests": requests // instances, "errors": errors // instances}
    return Cell({"requests": requests, "errors": errors}, instances={f"i-{k}": each for k in range(instances)})


def sequential(when: str) -> TriggerSpec:
    return replace(spec(when), min_samples=1)


def test_a_proof_says_what_it_rests_on() -> None:
    target = shard(sequential("error_rate@on > control"))
    seconds = arms(target, 30, cell(10, 6), cell(90, 2), T)
    evidence = first(seconds)
    assert (evidence.tier, evidence.obstacle, evidence.since) == ("proof", None, float(T))
    assert evidence.control == evidence.threshold == pytest.approx(2 / 90)
    assert evidence.evidence is not None
    assert evidence.bound is not None
    assert evidence.evidence >= evidence.bound
    assert evidence.window == (float(T), float(evidence.t))


def test_of_an_absence_the_control_is_the_evidence() -> None:
    target = shard(sequential("absence@on"))
    arms(target, 60, cell(10), cell(90), T)
    late = arms(target, 40, None, cell(90), T + 60)
    evidence = first(late)
    assert (evidence.tier, evidence.obstacle, evidence.since) == ("proof", None, T + 60.0)
    assert evidence.age == 2.0
    assert evidence.counts["requests"] == 90 * (evidence.t - T - 60)
    assert evidence.value >= evidence.threshold
    # The variant's own newest sample is old: that is the alarm.
    assert late[-1].time - T - 60 > FRESH_SECONDS
    assert late[-1].firing[0].obstacle is None


def test_every_tier_that_fires_has_a_name() -> None:
    assert set(_NAMES) == set(Tier) - {Tier.NONE}


def everything(target: Shard, seconds: int, begin: int, on: int, off: int) -> list[EvaluatedSecond]:
    """30 requests/s with each variant and 60 of the whole service; `on` and `off` of them fail."""

    def of(n: int, bad: int) -> Cell:
        return Cell({"requests": n, "errors": bad})

    return [
        found
        for at in range(begin, begin + seconds)
        for found in target.take(
            said(at + 1.0, cells(at, (SERVICE, of(60, on + off)), (ON, of(30, on)), (OFF, of(30, off)))), at + 3.0
        )
    ]


def test_a_fast_alarm_of_an_outage_of_both_arms_is_held_back_by_the_control_of_its_own_seconds() -> None:
    target = shard(replace(FAST, guard=True))
    everything(target, 60, T, 0, 0)
    evidence = first(everything(target, 2, T + 60, 15, 15))
    assert evidence.tier == "fast"
    assert evidence.obstacle is not None
    assert evidence.obstacle.startswith("the control breaches too: error_rate@off is 50 %, limit 10 %")


def test_a_fast_alarm_of_the_release_alone_is_not() -> None:
    target = shard(replace(FAST, guard=True))
    everything(target, 60, T, 0, 0)
    evidence = first(everything(target, 3, T + 60, 28, 0))
    assert (evidence.tier, evidence.obstacle) == ("fast", None)
