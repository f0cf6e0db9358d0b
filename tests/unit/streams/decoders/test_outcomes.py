"""Requests that do not say how they ended: they count as requests, and in no ratio of failures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cells import COUNTS, Scope
from detectors.conditions.metric_table import RATIOS, Metric
from detectors.windows.metrics import compute
from detectors.windows.ratios import RATIO_PARTS
from detectors.windows.store import Want, WindowStore
from streams.settings import Format
from tests.support.cells import Cell, cells
from tests.support.samples import T0, Stage, as_json

CART = Scope("production", "cart")


def measured(metric: Metric, counts: dict[str, int]) -> tuple[float, int]:
    """Value and samples of a metric over a second with these counts."""
    store = WindowStore([Want(CART, 10)], max_scopes=4)
    store.advance(T0, cells(T0, (CART, Cell(counts))))
    value, samples = compute(store, 10, metric, np.array([store.row(CART, 10)]))
    return float(value[0]), int(samples[0])


def test_every_ratio_says_of_what_it_is_a_part() -> None:
    assert set(RATIO_PARTS) == RATIOS


@pytest.mark.parametrize(
    ("metric", "counts", "value"),
    [
        ("error_rate", {"errors": 5}, 0.1),
        ("timeout_rate", {"timeouts": 5}, 0.1),
        ("availability", {"unavailable": 5}, 0.9),
    ],
)
def test_a_ratio_of_failures_is_of_the_requests_that_say_how_they_ended(
    metric: Metric, counts: dict[str, int], value: float
) -> None:
    assert measured(metric, {"requests": 1050, "no_outcome": 1000, **counts}) == (value, 50)


@pytest.mark.parametrize("metric", ["error_rate", "timeout_rate", "availability"])
def test_where_no_request_says_how_it_ended_there_is_no_ratio_of_failures(metric: Metric) -> None:
    value, samples = measured(metric, {"requests": 1000, "no_outcome": 1000})
    assert math.isnan(value)
    assert samples == 0


def test_throughput_counts_requests_however_they_ended() -> None:
    assert measured("throughput", {"requests": 1000, "no_outcome": 1000})[1] == 1000


@pytest.mark.parametrize("form", ["json", "ndjson", "json-array"])
def test_other_names_of_the_status_say_nothing(form: Format) -> None:
    record = as_json(status=None, status_code=500, statusCode=500, level="error", duration_ms=20)
    stage = Stage(form)
    stage.take([b"[%b]" % record if form == "json-array" else record])
    assert stage.rejects == {}
    assert stage.close()[CART, T0].counts == {"requests": 1, "no_outcome": 1}


@given(st.lists(st.sampled_from([None, 200, 404, 500, 503]), min_size=1, max_size=20))
def test_each_request_is_in_one_part_by_its_outcome(statuses: list[int | None]) -> None:
    stage = Stage("json")
    stage.take([as_json(status=status) for status in statuses])
    counts = stage.close()[CART, T0].counts
    assert counts["requests"] == len(statuses)
    assert counts["no_outcome"] == statuses.count(None)
    assert counts["errors"] == sum(status is not None and status >= 500 for status in statuses)


def test_the_new_counts_stand_at_the_end() -> None:
    # Partials of version 1 have the columns before them.
    assert COUNTS[9:] == ("no_outcome", "rejected")
