"""Numbers are shown in the units that triggers are written in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.conditions.units import compared, shown


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("error_rate", 0.112333, "11.23 %"),
        ("error_rate@on", 0.02, "2 %"),
        ("availability", 0.99, "99 %"),
        ("cache_hit_rate", 0.0, "0 %"),
        ("latency_p95", 44764.7, "44.76 s"),
        ("latency_p99.9@on", 45000.0, "45 s"),
        ("latency_mean", 812.4, "812.4 ms"),
        ("throughput", 12.5, "12.5/s"),
        ("throughput", 123456.7, "123,457/s"),
        ("measure.score", 0.8, "0.8"),
        ("measure.score", -3.0, "-3"),
    ],
)
def test_a_value_has_the_unit_of_its_metric(metric: str, value: float, text: str) -> None:
    assert shown(metric, value) == text


def test_a_limit_that_is_just_crossed_reads_differently_from_its_value() -> None:
    assert compared("error_rate", 0.0200004, ">", 0.02) == "2.00004 % > 2 %"
    assert compared("latency_p95", 45000.9, ">", 45000.0) == "45.001 s > 45 s"
    assert compared("error_rate", 0.02, "is not >", 0.02) == "2 % is not > 2 %"


@given(st.floats(0, 1), st.floats(0, 1))
def test_two_shares_that_differ_by_a_millionth_of_a_millionth_are_told_apart(a: float, b: float) -> None:
    left, right = compared("error_rate", a, ">", b).split(" > ")
    assert (left != right) or abs(a - b) <= 1e-12 * max(a, b)
