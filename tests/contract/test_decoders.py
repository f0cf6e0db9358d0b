"""One contract for every format: the same samples give the same cells, and a bad record affects no other."""

from __future__ import annotations

import json
import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.settings import Format
from streams.telemetry.columnar import ColumnarBatch
from streams.telemetry.sample import MAX_RECORD_BYTES, Sample
from tests.support.samples import T0, Stage, as_json, completed, count, records_of, samples, started, without_values

FORMATS: list[Format] = ["json", "json-array", "ndjson", "columnar"]
EVERY_FORMAT: list[Format] = [*FORMATS, "counters"]


@pytest.mark.parametrize("form", EVERY_FORMAT)
@given(given_samples=st.lists(completed | started, max_size=30), a_record=st.integers(1, 7))
def test_samples_are_counted_exactly(form: Format, given_samples: list[Sample], a_record: int) -> None:
    if form == "counters":
        given_samples = [without_values(sample) for sample in given_samples if sample.kind != "started"]
    given_samples.sort(key=lambda sample: sample.ts)
    stage = Stage(form)
    stage.take(records_of(given_samples, form, a_record))
    assert stage.rejects == {}
    assert stage.close() == count(given_samples)


@pytest.mark.parametrize("form", EVERY_FORMAT)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8), st.lists(samples, min_size=1, max_size=5))
def test_bytes_that_are_no_samples_are_rejected_and_good_records_counted(
    form: Format, noise: list[bytes], good: list[Sample]
) -> None:
    if form == "counters":
        good = [without_values(sample) for sample in good]
    good.sort(key=lambda sample: sample.ts)
    records = records_of(good, form)
    mixed: list[bytes] = []
    for i in range(max(len(noise), len(records))):
        mixed += noise[i : i + 1] + records[i : i + 1]
    stage = Stage(form)
    stage.take(mixed)
    # Random bytes may be blank lines or an empty array, which hold no sample and are no fault.
    blank = {i for i, value in enumerate(mixed) if value in noise and _holds_nothing(form, value)}
    bad = {i for i, value in enumerate(mixed) if value not in records} - blank
    assert set(stage.rejects) == bad
    assert stage.close() == count(good)


def _holds_nothing(form: Format, value: bytes) -> bool:
    if form in ("json", "counters"):
        return False
    if form == "ndjson":
        return not value.strip()
    try:
        if form == "json-array":
            return bool(json.loads(value) == [])
        return msgspec.msgpack.decode(value, type=ColumnarBatch).n == 0
    except (ValueError, msgspec.MsgspecError):
        return False


@pytest.mark.parametrize("form", FORMATS)
@given(given_samples=st.lists(samples, min_size=1, max_size=4), data=st.data())
def test_a_damaged_record_never_crashes_and_never_touches_its_neighbours(
    form: Format, given_samples: list[Sample], data: st.DataObject
) -> None:
    damaged = bytearray(records_of(given_samples, form, len(given_samples))[0])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    neighbours = [Sample(ts=T0 + 0.25, service="shop"), Sample(ts=T0 + 0.75, service="shop")]
    first, last = records_of(neighbours, form)
    stage = Stage(form)
    stage.take([first, bytes(damaged), last])
    assert set(stage.rejects) <= {1}
    shop = [cell.counts for (scope, _), cell in stage.close(5e9).items() if scope.service == "shop"]
    # The damaged record may still be a sample of another time: then the last neighbour is late.
    assert sum(counts["requests"] + counts["late"] for counts in shop) >= 2


@pytest.mark.parametrize("form", EVERY_FORMAT)
def test_tombstones_and_oversized_records_are_rejected_with_their_kind(form: Format) -> None:
    stage = Stage(form)
    stage.take([None, b"x" * (MAX_RECORD_BYTES + 1)])
    assert stage.rejects == {0: "empty", 1: "oversized"}
    assert stage.close() == {}


# Samples whose scope is not known, and, if the record has no time either, not their second.
NOBODYS = [
    {"ts": "now"},
    {"ts": None},
    {"ts": True},
    {"ts": 1.0},
    {"ts": (T0 + 0.5) * 1000},
    {"service": ""},
    {"service": 7},
    {"service": None},
    {"service": "x" * 257},
    {"service": "a\u0000b"},
    {"environment": "x\ny"},
    {"environment": 7},
    {"environment": ""},
]
# Samples that are no requests, but whose service and second are known.
NO_REQUEST = [
    {"n": 0},
    {"n": -1},
    {"n": 1_000_001},
    {"n": 1.5},
    {"n": "2"},
    {"kind": "started"},
    {"kind": "started", "id": ""},
    {"kind": "started", "id": 7},
    {"kind": "started", "id": "a", "n": 2},
]


@pytest.mark.parametrize("fields", [*NOBODYS, *NO_REQUEST], ids=str)
def test_a_sample_without_time_owner_or_weight_is_rejected_never_counted(
    fields: dict[str, object],
) -> None:
    stage = Stage("json")
    stage.take([as_json(), as_json(**fields), as_json()])
    assert stage.rejects == {1: "invalid"}
    (cell,) = stage.close().values()
    weight = 2 if fields in NO_REQUEST and fields.get("n") == 2 else 1
    assert cell.counts == Counter({"requests": 2} | ({"rejected": weight} if fields in NO_REQUEST else {}))
    assert stage.reducer.stats.unread == (fields in NOBODYS)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_not_a_number_and_infinity_cost_a_field_and_are_no_time(number: str) -> None:
    stage = Stage("json")
    for name in ("ts", "latency_ms"):
        text = as_json(**{name: 0}).decode().replace(f'"{name}": 0', f'"{name}": {number}')
        stage.take([text.encode()])
    assert list(stage.rejects) == [0]
    assert [cell.counts for cell in stage.close().values()] == [Counter(requests=1)]


ROW_FORMATS: list[Format] = ["json-array", "ndjson", "columnar"]
USUAL = {"ts": T0 + 0.5, "service": "cart", "status": 200, "latency_ms": 5.0}


@pytest.mark.parametrize("form", ROW_FORMATS)
@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({"ts": 5.0}, 0),
        ({"n": 0}, 1),
        ({"n": 2_000_000}, 1),
        ({"service": ""}, 0),
        ({"service": "a\nb"}, 0),
        ({"environment": "x" * 257}, 0),
        ({"id": "a", "n": 2, "kind": "started"}, 2),
    ],
    ids=str,
)
def test_a_bad_row_costs_only_itself_and_is_named(form: Format, changes: dict[str, object], counted: int) -> None:
    usual = Sample(**USUAL)  # type: ignore[arg-type]
    bad = Sample(**{**USUAL, **changes})  # type: ignore[arg-type]
    stage = Stage(form)
    stage.take([*records_of([usual, bad, usual], form, 3), *records_of([usual], form)])
    assert stage.rejects == {0: "invalid"}
    assert stage.reasons[0].startswith("row 1: ")
    all_cells = stage.close()
    assert sum(cell.counts.pop("rejected", 0) for cell in all_cells.values()) == counted
    for cell in all_cells.values():
        cell.instances[""].pop("rejected", 0)
    assert all_cells == count([usual] * 3)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_no_number_costs_a_columnar_row(number: float) -> None:
    usual = Sample(**USUAL)  # type: ignore[arg-type]
    bad = Sample(**{**USUAL, "ts": number})  # type: ignore[arg-type]
    stage = Stage("columnar")
    stage.take(records_of([usual, bad, usual], "columnar", 3))
    assert stage.rejects == {0: "invalid"}
    assert stage.close() == count([usual] * 2)


def test_a_record_cannot_pass_for_two() -> None:
    stage = Stage("json")
    stage.take([as_json() + b"," + as_json(), as_json()])
    assert stage.rejects == {0: "malformed"}
    assert [cell.counts["requests"] for cell in stage.close().values()] == [1]


def test_null_is_the_same_as_no_kind_and_no_id() -> None:
    stage = Stage("json")
    stage.take([as_json(kind=None, id=None), as_json(kind="completed", id="a" * 128)])
    assert stage.rejects == {}
    assert [cell.counts["requests"] for cell in stage.close().values()] == [2]


def test_unknown_fields_are_ignored() -> None:
    stage = Stage("json")
    stage.take([as_json(trace="abc", nested={"a": [1, {"b": None}]})])
    assert stage.rejects == {}
    assert len(stage.close()) == 1


def test_a_sample_far_ahead_of_its_record_is_taken_to_the_record() -> None:
    stage = Stage("json")
    stage.take([as_json(ts=T0 + 9.0), as_json(ts=T0 + 3.5)], timestamp=(T0 + 2) * 1000)
    assert sorted(second - T0 for _, second in stage.close()) == [2, 3]
    assert stage.reducer.stats.clamped == 1


def test_an_empty_list_is_no_columnar_batch_and_rejected() -> None:
    stage = Stage("columnar")
    stage.take([b"\x90"])
    assert set(stage.rejects) == {0}
