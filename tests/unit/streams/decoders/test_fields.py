"""A bad optional field costs that field: the request counts once, with all else that its sample says."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cells import MEASURE_SCALE, Scope
from detectors.windows.unreadable import unreadable
from streams.decoders.watch_list import WatchList
from streams.settings import Format
from streams.telemetry.columnar import PLAIN_VERSION
from tests.support.samples import T0, Stage, as_json

CART, ON = Scope("production", "cart"), Scope("production", "cart", "new", "on")
WATCH = WatchList.of([ON], measures=["score"])
FORMATS: list[Format] = ["json", "json-array", "ndjson", "columnar"]
GOOD: dict[str, Any] = {
    "ts": T0 + 0.5,
    "service": "cart",
    "instance": "i-1",
    "status": 503,
    "latency_ms": 7.0,
    "cache": "hit",
    "flags": {"new": "on", "dark": "x"},
    "measures": {"score": 0.5},
}
# What a field may hold that cannot be read, of every kind of value.
BAD: dict[str, list[Any]] = {
    "instance": ["a\nb", "x" * 257, 7, ["a"], True],
    "status": [-1, 1000, "503", True, [503], {}],
    "latency_ms": [-1, -0.001, 3_600_000.5, math.nan, math.inf, "7", True, []],
    "cache": ["warm", 7, True, {}],
    "flags": [{"new": True}, {"new": 1}, {"new": {"value": "on"}}, {"new": "x" * 257}, {"new": "a\nb"}, ["new"], "on"],
    "measures": [{"score": "high"}, {"score": 1e10}, {"score": math.nan}],
    "outcome": ["failed", 7, {}],
    "route": [7, "x" * 5000, {"id": 1}, None],
    "kind": ["SERVER", 7, {}],
    "id": [7, "", "x" * 129, {}],
}
NOT_COLUMNAR = {"route", "kind"}
"""The columnar format has no such field, or only two values of it."""


def record(form: Format, sample: dict[str, Any]) -> bytes:
    if form == "columnar":
        return columnar(sample)
    text = json.dumps(sample).encode()
    return b"[" + text + b"]" if form == "json-array" else text


def columnar(sample: dict[str, Any]) -> bytes:
    """A batch of one sample, whatever its fields hold; numbers of columns of doubles cannot be of other types."""
    latency = sample["latency_ms"]
    measures = [
        [name, bytes(4), np.array([value], dtype="<f8").tobytes()]
        for name, value in sample["measures"].items()
        if isinstance(value, float)
    ]
    ids = [b"\0\0\0\0", [sample["id"]], b""] if "id" in sample else []
    batch = [
        PLAIN_VERSION + bool(ids),
        1,
        np.array([sample["ts"]]).tobytes(),
        [[None, sample["service"], sample["flags"]]],
        b"",
        [sample["instance"]],
        b"",
        [[sample["status"], sample.get("outcome"), sample["cache"]]],
        b"",
        np.array([latency if isinstance(latency, float | int) else math.nan], dtype="<f8").tobytes(),
        b"\1",
        b"",
        measures,
        *ids,
    ]
    return msgspec.msgpack.encode(batch)


def columnar_can_hold(name: str, value: object) -> bool:
    if name in NOT_COLUMNAR or (name == "latency_ms" and value is True):
        return False
    return name != "measures" or value != {"score": "high"}


broken = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in BAD.items()})


@pytest.mark.parametrize("form", FORMATS)
@given(bad=broken)
def test_any_set_of_bad_fields_costs_just_them(form: Format, bad: dict[str, Any]) -> None:
    if form == "columnar":
        bad = {name: value for name, value in bad.items() if columnar_can_hold(name, value)}
    stage = Stage(form, watch=WATCH)
    stage.take([record(form, {**GOOD, **bad})])
    assert stage.rejects == {}
    all_cells = stage.close()
    cell = all_cells[CART, T0]

    expected = {"requests": 1}
    # A failure by status stands, however the outcome is spelt.
    expected |= {"no_outcome": 1} if "status" in bad else {"errors": 1, "unavailable": 1}
    expected |= {} if "latency_ms" in bad else {"latency_count": 1, "latency_us": 7000}
    expected |= {} if "cache" in bad else {"cache_hits": 1, "cache_lookups": 1}
    assert cell.counts == expected
    assert cell.instances == {"" if "instance" in bad else "i-1": expected}
    assert sum(cell.hist.values()) == ("latency_ms" not in bad)

    one = (1, MEASURE_SCALE)
    measures = {} if "measures" in bad else {"score": (1, MEASURE_SCALE // 2)}
    measures |= {unreadable("measure", "score"): one} if "measures" in bad else {}
    measures |= {unreadable("latency"): one} if "latency_ms" in bad else {}
    measures |= {unreadable("cache"): one} if "cache" in bad else {}
    whole = measures | ({unreadable("variant", "new"): one} if "flags" in bad else {})
    assert cell.measures == whole
    assert (all_cells[ON, T0].measures if "flags" not in bad else None) == (None if "flags" in bad else measures)
    assert ((ON, T0) in all_cells) == ("flags" not in bad)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("flags", [{"new": None}, {"new": ""}, {}, None, {"dark": True}, {"dark": None, "x": {"a": 1}}])
def test_no_variant_is_the_same_as_no_flag_and_what_nobody_watches_is_not_read(
    form: Format, flags: dict[str, object] | None
) -> None:
    stage = Stage(form, watch=WATCH)
    stage.take([record(form, {**GOOD, "flags": flags})])
    assert stage.rejects == {}
    assert stage.faults.entries() == []
    assert {scope for scope, _ in stage.close()} == {CART}


@pytest.mark.parametrize(
    ("cache", "hits", "lookups"),
    [("HIT", 1, 1), ("Miss", 0, 1), ("mISS", 0, 1), ("BYPASS", 0, 0), ("", 0, 0), ("-", 0, 0)],
)
@pytest.mark.parametrize("form", FORMATS)
def test_cache_results_are_read_as_others_write_them(form: Format, cache: str, hits: int, lookups: int) -> None:
    stage = Stage(form, watch=WATCH)
    stage.take([record(form, {**GOOD, "cache": cache})])
    counts = stage.close()[CART, T0].counts
    assert (counts["cache_hits"], counts["cache_lookups"]) == (hits, lookups)
    assert stage.faults.entries() == []


@pytest.mark.parametrize(("status", "outcome"), [(0, None), (99, None), (600, None), (999, None), (200, "failed")])
@pytest.mark.parametrize("form", FORMATS)
def test_a_status_that_is_no_answer_and_an_outcome_nobody_knows_are_no_success(
    form: Format, status: int, outcome: str | None
) -> None:
    stage = Stage(form, watch=WATCH)
    stage.take([record(form, {**GOOD, "status": status, "outcome": outcome})])
    counts = stage.close()[CART, T0].counts
    assert (counts["requests"], counts["no_outcome"], counts["errors"]) == (1, 1, 0)


def test_bytes_that_are_no_text_cost_the_field_that_has_them() -> None:
    stage = Stage("json", watch=WATCH)
    stage.take([as_json(route="/caf?", instance="i?", flags={"new": "o?"}, latency_ms=math.nan).replace(b"?", b"\xe9")])
    assert stage.rejects == {}
    all_cells = stage.close()
    assert all_cells[CART, T0].counts == {"requests": 1}
    assert set(all_cells[CART, T0].measures) == {unreadable("variant", "new"), unreadable("latency")}


def test_a_service_of_bytes_that_are_no_text_is_nobodys() -> None:
    stage = Stage("json")
    stage.take([as_json(service="caf?", latency_ms=-1).replace(b"?", b"\xe9")])
    assert stage.rejects == {0: "invalid"}
    assert stage.reducer.stats.unread == 1
