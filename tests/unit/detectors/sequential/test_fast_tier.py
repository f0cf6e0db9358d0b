"""The fast tier: its arithmetic, its false alarms, its delays."""

from __future__ import annotations

from itertools import product
from math import comb, isclose, log, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.sequential.fast_tier import FastTier, FastTierConfig
from tests.bench.detect import divergence

RATE, HEALTHY, R0 = 50, 0.005, 0.02


def array(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


seconds = st.lists(st.integers(0, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=12)


@given(seconds, st.floats(0.001, 0.9))
def test_the_statistic_is_that_of_the_recursion_in_plain_numbers(counts: list[tuple[int, int]], r0: float) -> None:
    factors = (2.0, 9.0, 50.0)
    detector = FastTier(1, FastTierConfig(gamma=1e300, odds=factors))
    plain = [0.0] * len(factors)
    for second, (bad, requests) in enumerate(counts):
        detector.update(second, array(bad), array(requests), r0)
        if requests:
            plain = [(m + 1) * w**bad / (1 - r0 + w * r0) ** requests for m, w in zip(plain, factors, strict=True)]
    expected = sum(plain) / len(plain)
    assert isclose(np.exp(detector.evidence[0]), expected, rel_tol=1e-6, abs_tol=0)


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_its_mean_under_the_null_is_the_number_of_seconds_at_most(share: float) -> None:
    r0, requests, span = 0.3, 2, 4
    mean = 0.0
    for outcome in product(range(requests + 1), repeat=span):
        chance = prod(comb(requests, x) * share**x * (1 - share) ** (requests - x) for x in outcome)
        detector = FastTier(1, FastTierConfig(gamma=1e9))
        for second, bad in enumerate(outcome):
            detector.update(second, array(bad), array(requests), r0)
        mean += chance * float(np.exp(detector.evidence[0]))
    assert mean == pytest.approx(span, rel=1e-9) if share == r0 else mean < span


def first_alarms(
    p: float, gamma: float, runs: int, warm: int, most: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rng = np.random.default_rng(3)
    detector = FastTier(runs, FastTierConfig(gamma=gamma))
    found = np.full(runs, np.nan)
    for second in range(warm + most):
        requests = rng.poisson(RATE, runs)
        bad = rng.binomial(requests, HEALTHY if second < warm else p)
        alarm = detector.update(second, bad, requests, R0)
        if second >= warm:
            found[alarm & np.isnan(found)] = second - warm + 1
            if not np.isnan(found).any():
                break
    return found


def test_the_mean_time_to_a_false_alarm_is_gamma_at_least_at_the_edge_of_the_null() -> None:
    # 1,000 runs of 3 gamma; a run without an alarm counts as 3 gamma, which is too little.
    found = first_alarms(R0, gamma=200, runs=1000, warm=0, most=600)
    assert np.nan_to_num(found, nan=600).mean() >= 200


@pytest.mark.parametrize(("p", "limit"), [(0.5, 1.2), (0.2, 2.0), (0.05, 25.0)])
def test_failures_are_found_in_the_promised_time_and_near_the_bound(p: float, limit: float) -> None:
    gamma = FastTierConfig().gamma
    delay = first_alarms(p, gamma, runs=400, warm=100, most=300)
    bound = log(gamma) / divergence(p, R0) / RATE
    assert delay.mean() <= limit
    assert delay.mean() <= 1.5 * bound + 1


def test_a_healthy_service_is_quiet() -> None:
    assert np.isnan(first_alarms(HEALTHY, FastTierConfig().gamma, runs=2000, warm=0, most=600)).all()


def test_an_alarm_ends_within_seconds_however_long_the_failure_was() -> None:
    detector = FastTier(1, FastTierConfig())
    for second in range(1000):
        alarm = detector.update(second, array(40), array(50), R0)
    assert alarm[0]
    healthy = [bool(detector.update(1000 + s, array(0), array(50), R0)[0]) for s in range(10)]
    assert not any(healthy[5:])


def test_each_row_has_its_own_null_and_it_may_change() -> None:
    detector = FastTier(2, FastTierConfig())
    alarms = [
        detector.update(second, array(15, 15), array(50, 50), np.array([0.02, 0.4])).tolist() for second in range(9)
    ]
    assert alarms[-1] == [True, False]
    for second in range(9, 30):
        last = detector.update(second, array(15, 15), array(50, 50), np.array([0.4, 0.02])).tolist()
    assert last == [False, True]


@pytest.mark.parametrize("r0", [float("nan"), -0.1, 1.1])
def test_a_null_that_is_no_rate_is_refused(r0: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        FastTier(1, FastTierConfig()).update(0, array(0), array(1), r0)


def test_a_gamma_below_one_second_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 second"):
        FastTier(1, FastTierConfig(gamma=0.5))
