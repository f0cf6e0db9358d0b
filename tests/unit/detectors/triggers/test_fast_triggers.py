"""The fast tier of triggers: when it fires, when it does not, and that the held rule is independent of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import MEASURE_SCALE
from detectors.conditions.spec import FALSE_ALARMS, TriggerSpec
from detectors.histogram import BINS, midpoints_ms
from detectors.sequential.fast_tier import FastTierConfig
from detectors.sequential.healthy_rate import HealthyRateConfig
from detectors.triggers.evaluation import Evaluation, Tier
from detectors.triggers.state_machine import State
from detectors.windows.overdue import measure_of
from tests.support.cells import Cell, cells
from tests.unit.detectors.triggers.test_evaluator import SERVICE, Bench, counts, spec

CAP = HealthyRateConfig().cap
WHEN = "error_rate > 2% over 60s for 2m"


def fast(when: str = WHEN, **changes: object) -> TriggerSpec:
    return replace(spec(when, min_samples=30, grace=30), fast=True, **changes)  # type: ignore[arg-type]


def run(bench: Bench, *seconds: Cell) -> list[Evaluation]:
    return [bench.see((SERVICE, second)) for second in seconds]


def states(found: list[Evaluation]) -> str:
    """Return the first letter of each state of the first trigger."""
    return "".join(State(int(one.state[0])).name[0].lower() for one in found)


GOOD, BAD, WORSE = counts(50), counts(50, 5), counts(50, 25)


def test_half_of_the_requests_failing_fires_within_two_seconds_and_says_why() -> None:
    bench = Bench(fast())
    run(bench, *[GOOD] * 60)
    first = run(bench, WORSE, WORSE)
    assert states(first)[-1] == "f"
    evaluation = first[-1]
    assert evaluation.firing() == [0]
    assert evaluation.tier.tolist() == [Tier.FAST]
    assert evaluation.gathered.since.tolist() == [1060]
    assert evaluation.gathered.null.tolist() == [CAP]
    assert evaluation.reason(0).startswith("fast: more than 10 % bad: evidence ")
    assert evaluation.reason(0).endswith("nats since 00:17:40")


def test_the_held_rule_keeps_its_own_time_beside_the_fast_tier() -> None:
    seconds = [GOOD] * 60 + [WORSE] * 3 + [GOOD] * 10 + [BAD] * 200
    slow, both = Bench(replace(fast(), fast=False)), Bench(fast())
    held, joined = run(slow, *seconds), run(both, *seconds)
    for plain, one in zip(held, joined, strict=True):
        assert one.first_true_at.tolist() == plain.first_true_at.tolist()
        if one.tier[0] != Tier.FAST:
            assert (one.state.tolist(), one.tier.tolist()) == (plain.state.tolist(), plain.tier.tolist())
    assert "f" in states(joined[60:73])
    assert "f" not in states(held[60:73])
    assert states(held)[-1] == "f"


def test_a_failure_below_ten_per_cent_is_left_to_the_held_rule_while_nothing_is_learnt() -> None:
    bench = Bench(fast())
    found = run(bench, *[GOOD] * 60, *[counts(50, 4)] * 100)
    assert Tier.FAST not in {int(one.tier[0]) for one in found}
    assert states(found)[-1] == "p"


def test_what_a_service_has_shown_for_an_hour_lowers_the_rate_that_is_called_healthy() -> None:
    bench = Bench(fast("error_rate > 2% over 60s for 1h"))
    for _ in range(70):
        # Every second is learnt from; that each is also evaluated is not the point.
        for _ in range(59):
            bench.pass_by((SERVICE, GOOD))
        run(bench, GOOD)
    found = run(bench, *[counts(50, 4)] * 60)
    assert found[-1].gathered.null.tolist() == [0.02]
    assert states(found)[-1] == "f"
    assert found[-1].tier.tolist() == [Tier.FAST]


def test_of_few_requests_the_evidence_is_enough_though_the_window_is_not() -> None:
    bench = Bench(replace(fast(), min_samples=900))
    found = run(bench, *[counts(2)] * 60, *[counts(2, 2)] * 20)
    assert states(found)[:60] == "u" * 60
    assert states(found)[-1] == "f"


def test_silence_is_unknown_and_after_the_grace_the_evidence_is_forgotten() -> None:
    bench = Bench(fast("error_rate > 2% over 10s for 2m"))
    run(bench, *[GOOD] * 30, *[WORSE] * 4)
    silent = [bench.see() for _ in range(45)]
    assert states(silent)[:9] == "f" * 9
    assert states(silent)[10:] == "u" * 35
    back = run(bench, *[GOOD] * 3)
    assert states(back) == "ooo"


def test_what_came_late_counts_as_well_and_does_not_keep_a_gross_failure_from_alarming() -> None:
    bench = Bench(fast("error_rate > 2% over 10s for 2m"))
    found = run(bench, *[GOOD] * 30, *[counts(50, 25, late=5)] * 5)
    assert states(found)[-5:] == "fffff"
    known = run(Bench(fast("error_rate > 2% over 10s for 2m")), *[GOOD] * 30, counts(55, 25))
    assert found[30].gathered.evidence[0] == known[30].gathered.evidence[0]


def test_a_service_that_is_nearly_all_late_never_alarms() -> None:
    bench = Bench(fast("error_rate > 2% over 10s for 2m"))
    found = run(bench, *[GOOD] * 30, *[counts(5, 5, late=100)] * 20)
    assert not any(one.gathered.evidence[0] > 5 for one in found[30:])


def test_no_healthy_rate_is_learnt_of_seconds_of_which_too_much_is_missing() -> None:
    clear = fast("error_rate > 2% over 10s for 2m")
    bench = Bench(clear, replace(clear, service="late"))
    # A quarter of an hour after the five minutes of quarantine.
    rows = (SERVICE, counts(50, 1)), (SERVICE._replace(service="late"), counts(50, 1, late=1))
    for _ in range(1200):
        bench.see(*rows)
    days = bench.evaluator.healthy_days()
    assert days[0].hours
    assert not days[1].hours


def test_what_fired_fast_is_kept_as_long_as_it_says() -> None:
    bench = Bench(fast("error_rate > 30% over 60s for 2m", keep_for=20))
    run(bench, *[GOOD] * 60, *[counts(50, 45)] * 2)
    after = run(bench, *[GOOD] * 40)
    ended = next(i for i, one in enumerate(after) if one.tier[0] == Tier.NONE)
    assert states(after[ended : ended + 20]) == "f" * 20
    assert states(after[ended + 20 :]) == "o" * (40 - ended - 20)
    kept = after[ended]
    assert kept.firing() == []
    assert kept.reason(0) == "kept firing: 3 % is not > 30 % any more"


def test_a_new_version_of_the_flag_begins_anew_from_its_second_on() -> None:
    bench = Bench(fast())
    run(bench, *[GOOD] * 60, *[WORSE] * 4)
    bench.evaluator.begin_version("production", "new", bench.second + 3)
    found = run(bench, *[WORSE] * 6)
    assert [one.tier[0] == Tier.FAST for one in found[:3]] == [False, False, False]
    assert found[-1].tier.tolist() == [Tier.FAST]
    assert found[-1].gathered.since.tolist() == [1067]


def test_another_flag_changes_nothing() -> None:
    bench = Bench(fast())
    run(bench, *[GOOD] * 60, *[WORSE] * 4)
    bench.evaluator.begin_version("production", "other", bench.second + 3)
    assert states(run(bench, WORSE)) == "f"


def test_evaluations_further_apart_lose_no_second() -> None:
    every, seldom = Bench(fast()), Bench(fast())
    seconds = [GOOD] * 60 + [WORSE] * 5
    for second in seconds:
        every.see((SERVICE, second))

        seldom.store.advance(seldom.second, cells(seldom.second, (SERVICE, second)))
        seldom.second += 1
        seldom.evaluator.update()
    found = seldom.evaluator.evaluate(seldom.second)
    again = every.see((SERVICE, GOOD))
    assert found.gathered.evidence[0] > math.log(FALSE_ALARMS)
    assert found.gathered.since.tolist() == again.gathered.since.tolist()


@pytest.mark.parametrize(
    ("when", "good", "bad"),
    [
        ("timeout_rate > 2% for 2m", counts(50), counts(50, timeouts=25)),
        ("availability < 98% for 2m", counts(50), counts(50, unavailable=25)),
        (
            "cache_hit_rate < 40% for 2m",
            counts(0, cache_hits=45, cache_lookups=50),
            counts(0, cache_hits=1, cache_lookups=50),
        ),
        (
            "latency_p95 > 1s for 2m",
            Cell({"latency_count": 50}, {100: 50}),
            Cell({"latency_count": 50}, {100: 25, 600: 25}),
        ),
    ],
)
def test_every_metric_of_bad_requests_can_be_fast(when: str, good: Cell, bad: Cell) -> None:
    bench = Bench(replace(fast(when), min_samples=1))
    assert states(run(bench, *[good] * 60)) == "o" * 60
    found = run(bench, *[bad] * 12)
    assert found[-1].tier.tolist() == [Tier.FAST]
    assert states(found)[-1] == "f"


def test_the_time_between_false_alarms_is_each_triggers_own() -> None:
    bench = Bench(fast(), fast("error_rate > 2% over 30s for 2m", false_alarms=3600))
    found = run(bench, *[GOOD] * 5)[-1]
    np.testing.assert_allclose(found.gathered.bound, [math.log(30 * 86_400), math.log(3600)])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, BINS - 1), min_size=1, max_size=40),
    st.floats(0.1, 0.99),
    st.integers(0, BINS - 1),
)
def test_a_quantile_exceeds_its_limit_just_where_too_many_latencies_do(
    latencies: list[int], quantile: float, limit: int
) -> None:
    """The fast tier counts latencies above the limit; the held rule computes the quantile."""
    percent = round(100 * quantile, 2)
    threshold = float(midpoints_ms()[limit])
    rule = replace(fast(f"latency_p{percent} > {threshold!r}ms over 1s"), min_samples=1)
    bench = Bench(rule)
    bench.see((SERVICE, Cell({"latency_count": len(latencies)}, {b: latencies.count(b) for b in latencies})))
    assert bench.evaluator._fast._counts is not None
    bad, whole = bench.evaluator._fast._counts.read()
    assert (int(bad[0]), int(whole[0])) == (sum(b > limit for b in latencies), len(latencies))
    value = bench.store.window(1).quantile(np.array([0]), percent / 100)[0]
    beyond = len(latencies) - math.ceil(round(percent * 100) * len(latencies) / 10_000)
    assert (value > threshold) == (int(bad[0]) > beyond)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=60))
def test_the_evidence_is_that_of_a_plain_loop(series: list[tuple[int, int]]) -> None:
    bench = Bench(fast())
    config = FastTierConfig()
    each = [0.0] * len(config.odds)
    for requests, errors in series:
        bad = min(errors, requests)
        found = bench.see((SERVICE, counts(requests, bad)))
        if requests:
            ceiling = config.gamma * len(config.odds)
            each = [
                (min(m, ceiling) + 1) * w**bad / (1 - CAP + w * CAP) ** requests
                for m, w in zip(each, config.odds, strict=True)
            ]
        mean = sum(each) / len(each)
        if mean > 1e-300:
            assert found.gathered.evidence[0] == pytest.approx(math.log(mean), abs=1e-6)
        assert (found.tier[0] == Tier.FAST) == (requests > 0 and mean >= config.gamma) or requests == 0


def test_requests_that_hang_are_bad_when_they_cross_the_limit_and_not_again_when_they_end() -> None:
    bench = Bench(replace(fast("latency_p95 > 1s for 2m"), min_samples=1))
    good = Cell({"latency_count": 50}, {100: 50})
    run(bench, *[good] * 60)
    counts_of = bench.evaluator._fast._counts
    assert counts_of is not None
    overdue = measure_of(1000.0)
    run(bench, Cell({"latency_count": 30}, {100: 30}, measures={overdue: (0, 20 / MEASURE_SCALE)}))
    assert [int(n[0]) for n in counts_of.read()] == [20, 50]
    run(bench, Cell({"latency_count": 50}, {100: 30, 600: 20}, measures={overdue: (0, -20 / MEASURE_SCALE)}))
    assert [int(n[0]) for n in counts_of.read()] == [0, 30]
