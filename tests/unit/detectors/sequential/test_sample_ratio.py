"""The sample ratio: the evidence is exact, deviations within the tolerance are accepted, a mismatch is detected."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import factorial, lgamma, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.sequential.sample_ratio import SampleRatio, SampleRatioConfig, _most_likely, log_gamma

TENTH = np.array([[0.1], [0.9]])
counts = st.lists(st.integers(0, 400), min_size=2, max_size=4)


def shares(weights: list[int]) -> NDArray[np.float64]:
    total = sum(weights)
    return np.array([[w / total] for w in weights])


def evidence(seen: list[int], share: NDArray[np.float64], tolerance: float) -> float:
    detector = SampleRatio(1, len(seen), SampleRatioConfig(tolerance=tolerance))
    detector.update(0, np.array(seen)[:, np.newaxis], share)
    return float(detector.evidence[0])


@given(st.floats(1, 1e12))
def test_log_gamma_is_that_of_the_library_of_c(x: float) -> None:
    assert float(log_gamma(x)) == pytest.approx(lgamma(x), rel=1e-12, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_without_tolerance_it_is_the_uniform_mixture_over_the_likelihood(treated: int, others: int) -> None:
    mixture = Fraction(factorial(treated) * factorial(others), factorial(treated + others + 1))
    null = Fraction(1, 10) ** treated * Fraction(9, 10) ** others
    assert evidence([treated, others], TENTH, 0.0) == pytest.approx(log(mixture / null), rel=1e-9, abs=1e-9)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_of_three_variants_too(a: int, b: int, c: int) -> None:
    # The uniform density on the shares of three variants is 2.
    mixture = 2 * Fraction(factorial(a) * factorial(b) * factorial(c), factorial(a + b + c + 2))
    null = Fraction(1, 10) ** a * Fraction(3, 10) ** b * Fraction(6, 10) ** c
    share = np.array([[0.1], [0.3], [0.6]])
    assert evidence([a, b, c], share, 0.0) == pytest.approx(log(mixture / null), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_its_mean_over_all_outcomes_is_one_at_most(tolerance: float) -> None:
    # 12 requests: all sequences with one count are equally likely, and there are 12! / (x! (12 - x)!) of them.
    for theta in (0.1 - tolerance, 0.1, 0.1 + tolerance):
        mean = sum(
            factorial(12)
            / (factorial(x) * factorial(12 - x))
            * theta**x
            * (1 - theta) ** (12 - x)
            * np.exp(evidence([x, 12 - x], TENTH, tolerance))
            for x in range(13)
        )
        assert mean == pytest.approx(1) if tolerance == 0 else mean < 1


@settings(deadline=None)
@given(counts, st.data(), st.floats(0.001, 0.3))
def test_the_most_likely_shares_are_within_the_tolerance_and_none_are_likelier(
    seen: list[int], data: st.DataObject, tolerance: float
) -> None:
    k = len(seen)
    share = shares(data.draw(st.lists(st.integers(1, 50), min_size=k, max_size=k)))
    theta = _most_likely(np.array(seen)[:, np.newaxis], share, tolerance)[:, 0]
    low, high = np.maximum(share[:, 0] - tolerance, 0), np.minimum(share[:, 0] + tolerance, 1)
    assert np.all(theta >= low - 1e-12)
    assert np.all(theta <= high + 1e-12)
    if all(seen):
        assert theta.sum() == pytest.approx(1)
        # A concave function on a convex set is greatest where no exchange between two shares, within the band, improves
        # it.
        for i, j in [*pairwise(range(k)), *[(b, a) for a, b in pairwise(range(k))], (0, k - 1), (k - 1, 0)]:
            step = min(1e-6, high[i] - theta[i], theta[j] - low[j])
            if i != j and step > 1e-9:
                moved = theta.copy()
                moved[i] += step
                moved[j] -= step
                assert np.dot(seen, np.log(moved)) <= np.dot(seen, np.log(theta)) + 1e-9


def run(real: float, runs: int, seconds: int, config: SampleRatioConfig) -> NDArray[np.float64]:
    rng = np.random.default_rng(6)
    detector, found = SampleRatio(runs, 2, config), np.full(runs, np.nan)
    share = np.repeat(TENTH, runs, axis=1)
    for second in range(1, seconds + 1):
        seen = np.stack([rng.poisson(50 * real, runs), rng.poisson(50 * (1 - real), runs)])
        found[detector.update(second, seen, share) & np.isnan(found)] = second
    return found


def test_false_alarms_are_rarer_than_alpha() -> None:
    exact = SampleRatioConfig(alpha=0.02, tolerance=0.0)
    assert 0 < np.isfinite(run(0.1, 2000, 200, exact)).mean() <= exact.alpha
    assert not np.isfinite(run(0.11, 2000, 200, SampleRatioConfig())).any()


def test_a_share_far_from_the_percentage_is_found_within_seconds() -> None:
    assert run(0.03, 200, 60, SampleRatioConfig()).mean() < 12
    assert run(0.2, 200, 60, SampleRatioConfig()).mean() < 12


def test_new_percentages_begin_anew_in_their_row_alone() -> None:
    detector = SampleRatio(2, 2, SampleRatioConfig())
    share = np.array([[0.1, 0.1], [0.9, 0.9]])
    seen = np.array([[50, 50], [50, 50]])
    assert detector.update(0, seen, share).tolist() == [True, True]
    share = np.array([[0.1, 0.5], [0.9, 0.5]])
    assert detector.update(1, seen, share).tolist() == [True, False]


def test_a_mismatch_stands_until_the_percentages_change() -> None:
    detector = SampleRatio(1, 2, SampleRatioConfig())
    assert detector.update(0, np.array([[50], [50]]), TENTH)[0]
    for second in range(1, 100):
        mismatch = detector.update(second, np.array([[100], [900]]), TENTH)
    assert detector.evidence[0] < 0
    assert mismatch[0]


def test_a_variant_of_no_share_is_found_when_it_is_served() -> None:
    detector = SampleRatio(1, 2, SampleRatioConfig())
    share = np.array([[0.0], [1.0]])
    assert not detector.update(0, np.array([[0], [1000]]), share)[0]
    assert detector.update(1, np.array([[300], [1000]]), share)[0]


def test_shares_whose_sum_is_not_one_are_refused() -> None:
    detector = SampleRatio(1, 2, SampleRatioConfig())
    for wrong in ([[0.1], [0.8]], [[-0.1], [1.1]], [[float("nan")], [0.9]]):
        with pytest.raises(ValueError, match="sum 1"):
            detector.update(0, np.array([[1], [9]]), np.array(wrong))


def test_a_configuration_that_is_none_is_refused() -> None:
    for variants, config in (
        (1, SampleRatioConfig()),
        (2, SampleRatioConfig(alpha=1.0)),
        (2, SampleRatioConfig(1e-3, 1)),
    ):
        with pytest.raises(ValueError, match="alpha"):
            SampleRatio(1, variants, config)
