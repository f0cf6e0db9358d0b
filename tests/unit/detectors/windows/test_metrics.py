"""The values of metrics."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from detectors.cells import Scope
from detectors.conditions.metric_table import Metric
from detectors.histogram import midpoints_ms
from detectors.windows.metrics import FORMULAS, compute
from detectors.windows.store import Want, WindowStore
from tests.support.cells import Cell, cells

A, B = Scope("production", "a"), Scope("production", "b")
WINDOW = 4


def read(
    cell: Cell, metric: Metric, *, quantile: float = 0.5, measure: str | None = None, after: int = 3
) -> tuple[float, int]:
    store = WindowStore([Want(A, WINDOW, latency=True)], max_scopes=2, measures=["quality", "cost"])
    store.advance(0)
    store.advance(after, cells(after, (A, cell)))
    rows = np.array([store.row(A, WINDOW)])
    value, samples = compute(store, WINDOW, metric, rows, quantile=quantile, measure=measure)
    return float(value[0]), int(samples[0])


FULL = Cell(
    counts={
        "requests": 200,
        "errors": 10,
        "timeouts": 4,
        "unavailable": 2,
        "cache_hits": 30,
        "cache_lookups": 40,
        "latency_count": 100,
        "latency_us": 12_345_000,
        "late": 7,
    },
    bins={100: 50, 200: 45, 300: 5},
    measures={"quality": (4, 3.0), "cost": (2, -5.0)},
)


@pytest.mark.parametrize(
    ("metric", "quantile", "measure", "value", "samples"),
    [
        ("error_rate", 0, None, 0.05, 200),
        ("timeout_rate", 0, None, 0.02, 200),
        ("availability", 0, None, 0.99, 200),
        ("cache_hit_rate", 0, None, 0.75, 40),
        ("throughput", 0, None, 50.0, 200),
        ("latency_mean", 0, None, 123.45, 100),
        ("latency_quantile", 0.5, None, midpoints_ms()[100], 100),
        ("latency_quantile", 0.95, None, midpoints_ms()[200], 100),
        ("latency_quantile", 0.951, None, midpoints_ms()[300], 100),
        ("measure", 0, "quality", 0.75, 4),
        ("measure", 0, "cost", -2.5, 2),
    ],
)
def test_value_and_samples(metric: Metric, quantile: float, measure: str | None, value: float, samples: int) -> None:
    assert read(FULL, metric, quantile=quantile, measure=measure) == (value, samples)


COMPUTED = [metric for metric in get_args(Metric) if metric != "absence"]
"""Absence is not read from a window: see detectors.triggers.absence_triggers."""


def test_every_metric_of_the_grammar_is_there() -> None:
    assert set(FORMULAS) == set(COMPUTED)


@pytest.mark.parametrize("metric", [m for m in COMPUTED if m != "throughput"])
def test_nothing_divided_by_nothing_is_no_value(metric: Metric) -> None:
    value, samples = read(Cell(), metric, measure="cost" if metric == "measure" else None)
    assert math.isnan(value)
    assert samples == 0


def test_silence_of_a_scope_once_seen_is_a_throughput_of_zero() -> None:
    assert read(Cell(), "throughput") == (0.0, 0)


def test_throughput_of_a_window_not_all_watched_is_no_value() -> None:
    value, samples = read(FULL, "throughput", after=2)
    assert math.isnan(value)
    assert samples == 200


@pytest.mark.parametrize("metric", COMPUTED)
def test_a_scope_never_seen_or_not_kept_has_no_value(metric: Metric) -> None:
    store = WindowStore([Want(A, WINDOW, latency=True)], max_scopes=2, measures=["cost"])
    store.advance(0)
    store.advance(9)
    rows = np.array([store.row(A, WINDOW), store.row(B, WINDOW)])
    value, samples = compute(store, WINDOW, metric, rows, measure="cost" if metric == "measure" else None)
    assert np.isnan(value).all()
    assert samples.tolist() == [0, 0]


def test_rows_are_answered_in_their_order_each_with_its_quantile() -> None:
    store = WindowStore([Want(A, WINDOW, latency=True), Want(B, WINDOW, latency=True)], max_scopes=2)
    one = Cell({"latency_count": 1}, {10: 1})
    two = Cell({"latency_count": 2}, {20: 1, 30: 1})
    store.advance(0, cells(0, (A, one), (B, two)))
    rows = np.array([store.row(B, WINDOW), -1, store.row(A, WINDOW), store.row(B, WINDOW)])
    value, samples = compute(store, WINDOW, "latency_quantile", rows, quantile=np.array([0.5, 0.5, 0.5, 0.99]))
    np.testing.assert_array_equal(value, [midpoints_ms()[20], np.nan, midpoints_ms()[10], midpoints_ms()[30]])
    assert samples.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(("bad", "of", "limit"), [(2, 100, 0.02), (3, 150, 0.02), (7, 100, 0.07), (29, 100, 0.29)])
def test_a_share_written_in_percent_equals_the_number_read(bad: int, of: int, limit: float) -> None:
    assert read(Cell({"requests": of, "errors": bad}), "error_rate")[0] == limit


@pytest.mark.parametrize("percent", range(101))
def test_availability_of_whole_percent_equals_the_number_read(percent: int) -> None:
    assert read(Cell({"requests": 100, "unavailable": 100 - percent}), "availability")[0] == float(f"{percent}e-2")


def test_what_the_store_does_not_keep_is_an_error() -> None:
    store = WindowStore([Want(A, WINDOW)], max_scopes=2)
    rows = np.array([0])
    with pytest.raises(KeyError):
        compute(store, WINDOW + 1, "error_rate", rows)
    with pytest.raises(KeyError):
        compute(store, WINDOW, "measure", rows, measure="cost")
