"""The quantile of ended and overdue requests, compared with a sorted list."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import BINS, bins, midpoints_ms
from detectors.windows.overdue import LONGEST_MS, above_ms, corrected_quantile, limit_of, measure_of

latencies = st.floats(0, LONGEST_MS) | st.floats(0.5, 60)
limits = st.floats(0.1, 100_000) | st.sampled_from([1.0, 2.0, 1000.0, 45_000.0])


@given(
    st.lists(latencies, max_size=40),
    st.integers(0, 20),
    st.integers(0, 40),
    limits,
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
def test_whether_the_quantile_is_above_the_limit_is_what_a_plain_count_of_the_requests_says(
    ended: list[float], running: int, before: int, limit: float, q: float
) -> None:
    counts = np.bincount(bins(np.array(ended)), minlength=BINS)
    shown = [midpoints_ms()[b] for b in bins(np.array(ended))]
    above = sum(ms > limit for ms in shown)
    # `before` of the requests that ended above the limit crossed it before the window, so they do not count in it.
    before = min(before, above)
    every = len(ended) + running - before
    value, samples = corrected_quantile(counts, running - before, limit, q)
    assert samples == every
    if not every:
        assert math.isnan(value)
        return
    rank = max(1, math.ceil(Fraction(str(q)) * every))
    assert (value > limit) == (rank > len(ended) - above)
    if value <= limit:
        assert value == sorted(shown)[rank - 1]


@given(limits)
def test_the_latency_just_above_a_limit_is_shown_as_more_and_is_near(limit: float) -> None:
    shown = midpoints_ms()[bins(np.array([above_ms(limit)]))[0]]
    assert limit < shown == above_ms(limit)
    assert above_ms(limit) < 1.034 * limit


def test_more_taken_away_than_there_is_leaves_nothing_above_the_limit() -> None:
    counts = np.bincount(bins(np.array([5.0, 5.0, 50.0])), minlength=BINS)
    value, samples = corrected_quantile(counts, -4, 10.0, 0.99)
    assert samples == 2
    assert value == pytest.approx(5.0, rel=0.011)


@pytest.mark.parametrize(
    ("condition", "limit"),
    [
        ("latency_p95 > 45s over 10s", 45_000.0),
        ("latency_p95@on > 45s over 10s", 45_000.0),
        ("latency_p50 < 5ms over 10s", 5.0),
        ("latency_p99 > 1.5x baseline over 10s", 1.5 * 812),
        ("latency_p99@on > 3x control over 10s", None),
        ("latency_mean > 45s over 10s", None),
        ("error_rate > 2% over 10s", None),
        ("latency_p95 > 60m over 10s", None),
    ],
)
def test_a_limit_is_the_fixed_latency_that_a_quantile_is_compared_with(condition: str, limit: float | None) -> None:
    spec = TriggerSpec(
        name="slow",
        flag="new",
        environment="production",
        service="shop",
        condition=parse(condition),
        safe_variant="off",
        min_samples=1,
        control_variant="off",
        baseline=812.0,
    )
    assert limit_of(spec) == limit


def test_limits_have_measures_of_their_own_that_do_not_print() -> None:
    assert measure_of(1000.0) != measure_of(1000.1)
    assert not measure_of(1000.0).isprintable()
