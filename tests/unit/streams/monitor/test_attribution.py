"""A rejected sample counts for its service, second and instance, as far as these can be read."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from detectors.cells import Scope
from streams.settings import Format
from streams.telemetry.sample import Sample
from tests.support.samples import T0, Stage, as_json, records_of

CART = Scope("production", "cart")
LATER = (T0 + 3) * 1000
"""The time of the records, in milliseconds."""


def rejected(*values: bytes, form: Format = "json", now: float = math.inf, timestamp: int = LATER) -> dict[Any, Any]:
    """Rejected samples by scope, second since T0 and instance; under None, those whose service cannot be read."""
    stage = Stage(form)
    stage.take(list(values), now=now, timestamp=timestamp)
    found: dict[Any, Any] = {}
    for (scope, second), cell in stage.close().items():
        for name, counts in cell.instances.items():
            if counts["rejected"]:
                found[scope, second - T0, name] = counts["rejected"]
    if unread := stage.reducer.take_unreported().rejected:
        found[None] = unread
    return found


def test_a_sample_without_a_weight_counts_at_its_own_time_for_service_and_instance() -> None:
    assert rejected(as_json(n=0, instance="i-1", flags={"new": "on"})) == {(CART, 0, "i-1"): 1}


@pytest.mark.parametrize("ts", [T0 * 1000, "2026-11-28T12:00:00Z", None, 5])
def test_a_sample_without_a_time_counts_at_that_of_its_record(ts: object) -> None:
    assert rejected(as_json(ts=ts, n=7)) == {(CART, 3, ""): 7}


def test_where_the_record_has_no_time_either_it_is_nobodys() -> None:
    assert rejected(as_json(ts=T0 * 1000), timestamp=-1) == {None: 1}


@pytest.mark.parametrize(
    "fields", [{"service": None}, {"service": 7}, {"environment": ["x"]}, {"environment": ""}], ids=str
)
def test_a_sample_that_does_not_say_whose_it_is_is_nobodys(fields: dict[str, object]) -> None:
    assert rejected(as_json(**fields)) == {None: 1}


@pytest.mark.parametrize("value", [b"", b"{", b"null", b"[1, 2]", b"\x0a\x05hello"])
def test_records_that_hold_no_sample_are_nobodys(value: bytes) -> None:
    assert rejected(value) == {None: 2 if value == b"[1, 2]" else 1}


@pytest.mark.parametrize("form", ["json", "ndjson", "json-array", "columnar"])
def test_what_is_ahead_of_the_clock_counts_with_what_came_before_it(form: Format) -> None:
    samples = [Sample(ts=T0 + ts, service="cart", instance="i-1", status=200) for ts in (1.5, 3600.0)]
    assert rejected(*records_of(samples, form), form=form, now=T0 + 9.0, timestamp=-1) == {(CART, 1, "i-1"): 1}


def test_what_is_rejected_moves_no_watermark() -> None:
    stage = Stage("json")
    stage.take([as_json(), as_json(ts=T0 + 3600.0), as_json(ts=T0 + 50.0, n=0)], now=T0 + 100.0)
    assert stage.reducer.reached == T0 + 0.5


def test_a_columnar_row_without_a_time_counts_at_that_of_its_record() -> None:
    rows = [Sample(ts=ts, service="cart", instance="i-1", n=3) for ts in (T0 + 0.5, 5.0, math.nan)]
    assert rejected(*records_of(rows, "columnar", 3), form="columnar") == {(CART, 3, "i-1"): 6}


def test_a_snapshot_that_cannot_be_read_counts_once() -> None:
    bad = json.dumps({"ts": T0 + 1, "service": "cart", "instance": "i-1", "counters": {"requests": -1}}).encode()
    assert rejected(bad, form="counters") == {(CART, 1, "i-1"): 1}


def test_received_are_all_samples_and_rejected_those_of_nobody() -> None:
    stage = Stage("json")
    stage.take([as_json(), as_json(n=0), as_json(service=7), as_json(latency_ms=-1), b"{"])
    counts = stage.reducer.take_unreported()
    assert (counts.received, counts.rejected) == (5, 2)
    assert stage.reducer.take_unreported() == (0, 0, 0)
