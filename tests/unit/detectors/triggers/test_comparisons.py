"""Proof against the control, and absence: when a comparison of two arms fires, and when it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.conditions.spec import TriggerSpec
from detectors.sequential.canary_proof import CanaryProofConfig
from detectors.triggers.evaluation import Evaluation, Tier
from detectors.triggers.state_machine import State
from tests.support.cells import Cell
from tests.unit.detectors.triggers.test_evaluator import OFF, ON, Bench, counts, spec

ALPHA = CanaryProofConfig().alpha


def proof(when: str = "error_rate@on > control") -> TriggerSpec:
    return spec(when, min_samples=1, grace=30)


def both(bench: Bench, seconds: int, on: Cell | None, off: Cell | None) -> list[Evaluation]:
    rows = [(scope, cell) for scope, cell in ((ON, on), (OFF, off)) if cell is not None]
    return [bench.see(*rows) for _ in range(seconds)]


def state(evaluation: Evaluation) -> str:
    return State(int(evaluation.state[0])).name


def test_a_variant_that_is_worse_than_the_control_is_proven_so_and_stays_it() -> None:
    bench = Bench(proof())
    found = both(bench, 10, counts(10, 5), counts(90, 1))
    assert state(found[-1]) == "FIRING"
    assert found[-1].tier.tolist() == [Tier.PROOF]
    assert found[-1].gathered.evidence[0] >= -math.log(ALPHA)
    assert found[-1].gathered.since.tolist() == [1000]
    assert found[-1].reason(0).startswith("proof: 50 % > 1.111 % of the control: evidence ")
    assert state(both(bench, 60, counts(10), counts(90))[-1]) == "FIRING"


def test_an_outage_of_both_arms_proves_nothing() -> None:
    chance = np.random.default_rng(20240501)
    bench = Bench(proof())
    both(bench, 60, counts(10), counts(90))
    for _ in range(300):
        on, off = (counts(n, int(chance.binomial(n, 0.4))) for n in (10, 90))
        assert state(both(bench, 1, on, off)[0]) == "OK"


def test_a_raise_of_the_percentage_is_no_proof() -> None:
    chance = np.random.default_rng(20240502)
    bench = Bench(proof())
    for share in (0.1, 0.5, 0.9, 0.1):
        for _ in range(100):
            n = round(500 * share)
            on, off = (counts(k, int(chance.binomial(k, 0.02))) for k in (n, 500 - n))
            assert state(both(bench, 1, on, off)[0]) == "OK"


def test_without_requests_of_one_arm_nothing_is_known() -> None:
    bench = Bench(proof())
    assert both(bench, 1, None, counts(90, 1))[0].reason(0) == "never seen: variants of 'new' that were seen are 'off'"
    reason = both(Bench(proof()), 1, counts(9, 9), None)[0].reason(0)
    assert reason == "control: never seen: variants of 'new' that were seen are 'on'"


def test_a_new_version_of_the_flag_is_a_new_stage() -> None:
    bench = Bench(proof())
    both(bench, 10, counts(10, 5), counts(90, 1))
    bench.evaluator.begin_version("production", "new", bench.second + 2)
    found = both(bench, 2, counts(10, 5), counts(90, 1))
    assert [(state(one), one.gathered.evidence[0]) for one in found] == [("OK", 0.0)] * 2
    again = both(bench, 8, counts(10, 5), counts(90, 1))[-1]
    assert state(again) == "FIRING"
    assert again.gathered.since.tolist() == [1012]
    bench.evaluator.begin_version("production", "new", 1012)
    assert state(both(bench, 1, counts(10, 5), counts(90, 1))[0]) == "FIRING", "a repeated call has no effect"


@pytest.mark.parametrize(
    ("when", "good", "bad"),
    [
        ("timeout_rate@on > control", counts(50), counts(50, timeouts=25)),
        ("availability@on < control", counts(50), counts(50, unavailable=25)),
        (
            "cache_hit_rate@on < control",
            counts(0, cache_hits=49, cache_lookups=50),
            counts(0, cache_hits=9, cache_lookups=50),
        ),
    ],
)
def test_every_ratio_can_be_proven(when: str, good: Cell, bad: Cell) -> None:
    assert state(both(Bench(proof(when)), 10, bad, good)[-1]) == "FIRING"
    assert state(both(Bench(proof(when)), 60, good, bad)[-1]) == "OK"


FAST, SLOW = 100, 300


def timed(n: int, slow: int) -> Cell:
    return Cell({"requests": n, "latency_count": n}, {FAST: n - slow, SLOW: slow})


def test_a_latency_is_compared_with_the_controls_own_quantile_frozen_at_the_beginning() -> None:
    bench = Bench(proof("latency_p95@on > control"))
    first = both(bench, 1, timed(50, 0), timed(150, 0))[0]
    assert first.reason(0) == "control: too few timed requests to take latency_p95 of"
    assert state(both(bench, 1, timed(50, 0), timed(150, 0))[0]) == "OK"
    # The control becomes slow too: requests of both arms exceed its frozen quantile, and nothing is proven.
    assert state(both(bench, 60, timed(50, 25), timed(150, 75))[-1]) == "OK"
    worse = Bench(proof("latency_p95@on > control"))
    both(worse, 2, timed(50, 0), timed(150, 0))
    assert state(both(worse, 10, timed(50, 25), timed(150, 0))[-1]) == "FIRING"


def test_shares_that_do_not_fit_the_percentage_make_the_comparison_unknown() -> None:
    bench = Bench(proof())
    bench.evaluator.begin_version("production", "new", 1000, share=0.5)
    found = both(bench, 30, counts(10, 5), counts(90, 1))[-1]
    assert state(found) == "UNKNOWN"
    assert found.reason(0).startswith("sample ratio mismatch")
    fitting = Bench(proof())
    fitting.evaluator.begin_version("production", "new", 1000, share=0.1)
    assert state(both(fitting, 30, counts(10, 5), counts(90, 1))[-1]) == "FIRING"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_the_evidence_of_a_proof_is_that_of_a_plain_loop(series: list[tuple[int, int, int, int]]) -> None:
    bench = Bench(proof())
    odds = CanaryProofConfig().odds
    each = [1.0] * len(odds)
    proven = False
    for own, own_bad, control, control_bad in series:
        x, y = min(own, own_bad), min(control, control_bad)
        found = both(bench, 1, counts(own, x), counts(control, y))[0]
        if own and control:
            rho = own / (own + control)
            each = [e * w**x / (1 - rho + w * rho) ** (x + y) for e, w in zip(each, odds, strict=True)]
        mean = sum(each) / len(each)
        assert found.gathered.evidence[0] == pytest.approx(math.log(mean), abs=1e-6)
        proven |= mean >= 1 / ALPHA
        assert bool(found.breach[0]) == (proven and state(found) != "UNKNOWN")


ABSENCE = spec("absence@on", grace=30)


def test_a_variant_that_falls_silent_while_the_control_lives_fires() -> None:
    bench = Bench(ABSENCE)
    assert state(both(bench, 60, counts(10), counts(90))[-1]) == "OK"
    found = both(bench, 5, None, counts(90))
    fired = next(one for one in found if state(one) == "FIRING")
    assert fired.tier.tolist() == [Tier.PROOF]
    assert fired.threshold.tolist() == fired.gathered.bound.tolist()
    assert fired.value[0] >= fired.threshold[0]
    assert fired.gathered.since.tolist() == [1060]
    assert fired.reason(0).startswith("proof: no request of the variant: evidence ")
    assert state(both(bench, 1, counts(1), counts(90))[0]) == "OK"


def test_silence_of_both_is_unknown_and_adds_nothing() -> None:
    bench = Bench(ABSENCE)
    both(bench, 60, counts(10), counts(90))
    silent = both(bench, 30, None, None)
    assert [state(one) for one in silent] == ["OK"] * 9 + ["UNKNOWN"] * 21
    assert silent[-1].reason(0) == "no request of the control in 10 s either"
    assert silent[-1].value.tolist() == [0.0]


def test_a_variant_of_few_requests_is_not_missed() -> None:
    bench = Bench(ABSENCE)
    found = both(bench, 2, counts(10), counts(90)) + both(bench, 60, None, counts(90))
    assert {state(one) for one in found} == {"UNKNOWN"}
    assert found[-1].reason(0) == "too few requests of the variant seen to know its share"


def test_a_variant_with_a_request_now_and_then_is_not_absent_between_them() -> None:
    bench = Bench(ABSENCE)
    found_states = set()
    # The variant has one of 600 requests, and in its own seconds one of 21.
    for _ in range(40):
        for one in both(bench, 1, counts(1), counts(20)) + both(bench, 29, None, counts(20)):
            found_states.add(state(one))
    assert found_states == {"UNKNOWN", "OK"}


def test_a_new_version_of_the_flag_has_another_share() -> None:
    bench = Bench(ABSENCE)
    both(bench, 60, counts(10), counts(90))
    bench.evaluator.begin_version("production", "new", bench.second)
    assert {state(one) for one in both(bench, 30, None, counts(90))} == {"UNKNOWN"}


def test_where_the_percentage_is_known_it_is_the_share_once_the_variant_was_seen() -> None:
    bench = Bench(ABSENCE)
    bench.evaluator.begin_version("production", "new", 1000, share=0.5)
    assert {state(one) for one in both(bench, 30, None, counts(9))} == {"UNKNOWN"}
    both(bench, 1, counts(9), counts(9))
    missed = both(bench, 3, None, counts(9))
    assert [one.value[0] for one in missed] == pytest.approx([9 * math.log(2) * k for k in (1, 2, 3)])
    assert state(missed[-1]) == "FIRING"


def test_too_much_that_came_late_makes_absence_unknown() -> None:
    bench = Bench(ABSENCE)
    both(bench, 60, counts(10), counts(90))
    assert state(both(bench, 3, counts(0, late=30), counts(90))[-1]) == "UNKNOWN"


def test_what_the_control_sends_late_does_not_hide_an_absence() -> None:
    bench = Bench(ABSENCE)
    both(bench, 60, counts(10), counts(90))
    assert state(both(bench, 3, None, counts(90, late=9))[-1]) == "FIRING"


def test_a_variant_whose_samples_are_all_rejected_is_not_absent() -> None:
    bench = Bench(ABSENCE)
    both(bench, 60, counts(10), counts(90))
    found = both(bench, 30, counts(0, rejected=10), counts(90))[-1]
    assert (state(found), found.reason(0)) == ("UNKNOWN", "rejected 10 % > 1 %")


def test_absence_alarms_as_seldom_as_it_says() -> None:
    bench = Bench(replace(ABSENCE, false_alarms=3600))
    both(bench, 60, counts(10), counts(90))
    assert both(bench, 1, None, None)[0].threshold.tolist() == [pytest.approx(math.log(3600))]
