"""E-values, checked against the exact probabilities of small counts."""

from __future__ import annotations

from math import comb, isclose, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.sequential.evalues import checked_odds, log_evalues, log_mean

rates = st.floats(0.001, 0.999)
odds = st.floats(1.01, 200)


def evalue(bad: int, total: int, null: float, factor: float) -> float:
    return float(np.exp(log_evalues(np.array([bad]), np.array([total]), null, np.log([factor])))[0, 0])


def mean(total: int, true: float, null: float, factor: float) -> float:
    """Return the mean of e over all outcomes of `total` requests that are bad with probability `true`."""
    return sum(
        comb(total, x) * true**x * (1 - true) ** (total - x) * evalue(x, total, null, factor) for x in range(total + 1)
    )


@given(st.integers(1, 12), rates, odds)
def test_the_mean_is_one_at_the_edge_of_the_null(total: int, null: float, factor: float) -> None:
    assert isclose(mean(total, null, null, factor), 1, rel_tol=1e-9)


@given(st.integers(1, 12), rates, st.floats(0, 1), odds)
def test_the_mean_is_less_than_one_within_the_null(total: int, null: float, part: float, factor: float) -> None:
    assert mean(total, null * part, null, factor) <= 1 + 1e-9


@given(st.integers(0, 20), st.integers(0, 20), rates, odds)
def test_it_is_the_likelihood_ratio_of_odds_that_are_higher_by_the_factor(
    bad: int, good: int, null: float, factor: float
) -> None:
    p = factor * null / (1 - null + factor * null)
    assert isclose(p / (1 - p), factor * null / (1 - null), rel_tol=1e-6)
    ratio = bad * log(p / null) + good * log((1 - p) / (1 - null))
    assert isclose(log(evalue(bad, bad + good, null, factor)), ratio, rel_tol=1e-6, abs_tol=1e-6)


def test_a_null_of_zero_or_one_gives_finite_numbers() -> None:
    assert evalue(0, 9, 0.0, 4.0) == 1
    assert evalue(2, 9, 0.0, 4.0) == pytest.approx(16)
    assert evalue(9, 9, 1.0, 4.0) == pytest.approx(1)


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=5))
def test_the_mean_of_logarithms_is_the_logarithm_of_the_mean(logs: list[float]) -> None:
    assert isclose(
        log_mean(np.array(logs)[:, np.newaxis])[0], log(sum(np.exp(logs)) / len(logs)), rel_tol=1e-9, abs_tol=1e-9
    )


def test_the_mean_of_logarithms_does_not_overflow() -> None:
    assert log_mean(np.array([[5000.0], [-5000.0]]))[0] == pytest.approx(5000 - log(2))


def test_odds_that_are_not_raised_are_refused() -> None:
    with pytest.raises(ValueError, match="greater than 1"):
        checked_odds((2.0, 1.0))
    with pytest.raises(ValueError, match="greater than 1"):
        checked_odds(())
