"""The number of samples that a trigger needs, compared with exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import comb, floor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detectors.conditions.sample_size import needed_samples, needed_timed_samples, tail


def exact_tail(n: int, p: Fraction, least: int) -> Fraction:
    return sum((comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(least, n + 1)), Fraction(0))


@pytest.mark.parametrize(
    ("healthy", "threshold", "below", "samples"),
    [
        (0.005, 0.02, False, 900),
        (0.001, 0.02, False, 250),
        (0.995, 0.99, True, 5900),
        (0.999, 0.99, True, 800),
        (0.5, 0.4, True, 564),
        (0.6, 0.4, True, 139),
    ],
)
def test_known_values(healthy: float, threshold: float, below: bool, samples: int) -> None:
    assert needed_samples(healthy, threshold, below=below) == samples


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(35, 99), st.sampled_from([0.047, 0.0093, 0.00107]))
def test_from_it_on_chance_is_kept_and_just_below_it_is_not(healthy: int, threshold: int, chance: float) -> None:
    p, t = Fraction(healthy, 100), Fraction(threshold, 100)
    samples = needed_samples(healthy / 100, threshold / 100, chance=chance)
    assert samples is not None
    limit = Fraction(chance)
    if samples > 1:
        assert exact_tail(samples - 1, p, floor(t * (samples - 1)) + 1) > limit
    for n in range(samples, samples + 40):
        assert exact_tail(n, p, floor(t * n) + 1) <= limit


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 700), st.integers(10, 500), st.sampled_from([1e-2, 1e-4, 1e-6]))
@example(700, 150, 1e-2)
@example(630, 160, 1e-2)
def test_the_search_finds_what_walking_through_all_numbers_finds(healthy: int, above: int, chance: float) -> None:
    # Thresholds of three digits, whose reciprocal is not whole: the ends of the teeth tremble.
    p, t = Fraction(healthy, 1000), Fraction(min(healthy + above, 999), 1000)
    bad = [n for n in range(1, 3000) if tail(n, float(p), floor(t * n) + 1) > chance]
    found = needed_samples(float(p), float(t), chance=chance)
    if found is not None and found < 2500:
        assert found == max(bad, default=0) + 1


@given(st.integers(1, 200), st.fractions(Fraction(1, 1000), Fraction(999, 1000)), st.data())
def test_the_tail_is_exact_to_ten_digits(n: int, p: Fraction, data: st.DataObject) -> None:
    least = data.draw(st.integers(0, n + 1))
    assert tail(n, float(p), least) == pytest.approx(float(exact_tail(n, p, least)), rel=1e-10, abs=1e-300)


def test_the_tail_is_exact_where_its_first_term_is_too_small_for_a_number() -> None:
    p = Fraction(23237657, 23261800)
    assert tail(105, float(p), 1) == pytest.approx(float(exact_tail(105, p, 1)), rel=1e-10)


def test_above_and_below_are_the_same_question_of_the_complement() -> None:
    assert needed_samples(0.93, 0.87, below=True) == needed_samples(0.07, 0.13)


def test_a_quantile_breaches_when_more_than_its_share_is_beyond() -> None:
    assert needed_timed_samples(0.01, 0.95) == needed_samples(0.01, 0.05)
    # In binary 1 - 0.999 is not 1/1000, and a healthy share of exactly 1/1000 would seem to breach.
    assert needed_timed_samples(0.001, 0.999) is None


def test_a_healthy_level_at_the_threshold_has_no_number_and_beyond_it_is_refused() -> None:
    assert needed_samples(0.02, 0.02) is None
    assert needed_samples(0.0199, 0.02) is None
    with pytest.raises(ValueError, match="breaches"):
        needed_samples(0.03, 0.02)
    with pytest.raises(ValueError, match="breaches"):
        needed_samples(0.3, 0.4, below=True)


def test_what_never_happens_or_is_never_reached_needs_one_sample() -> None:
    assert needed_samples(0.0, 0.02) == 1
    assert needed_samples(0.3, 1.0) == 1
    assert needed_samples(1.0, 0.99, below=True) == 1
