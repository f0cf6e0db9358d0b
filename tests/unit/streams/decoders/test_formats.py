"""Which format a record has, and records that are nearly one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.decoders.decoder import CONTENT_TYPES, Decoder
from streams.decoders.interner import Interner
from streams.settings import Format
from streams.slices import Slice, Source
from streams.telemetry.sample import Sample
from tests.support.samples import T0, TOPIC, WATCH, Stage, as_json, count, records_of, samples

FORMATS: list[Format] = ["json", "json-array", "ndjson", "columnar"]
HEADERS: dict[bytes, Format] = {
    b"application/json": "json",
    b"application/json; charset=utf-8": "json",
    b"Application/X-NDJSON": "ndjson",
    b"application/vnd.flipback.columnar+msgpack": "columnar",
}


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(samples, st.none() | st.sampled_from(sorted(HEADERS))), min_size=1, max_size=12),
)
def test_the_header_of_a_record_outranks_the_format_of_its_topic(
    configured: Format, given_samples: list[tuple[Sample, bytes | None]]
) -> None:
    given_samples.sort(key=lambda pair: pair[0].ts)
    values: list[bytes | None] = []
    headers: dict[int, bytes] = {}
    for index, (sample, header) in enumerate(given_samples):
        values += records_of([sample], HEADERS[header] if header else configured)
        if header:
            headers[index] = header
    stage = Stage(configured)
    size = len(values)
    batch = stage.decoder.decode(Slice(Source(TOPIC, 0), values, list(range(size)), [-1] * size, headers))
    assert batch.rejects == []
    assert batch.columns.record.tolist() == list(range(size))
    stage.reducer.add(batch, T0 + 100.0)
    assert stage.close() == count(sample for sample, _ in given_samples)


@pytest.mark.parametrize("header", [b"", b"application/octet-stream", b"\xff\xfe", b"application/json2"])
def test_a_header_that_names_no_known_format_says_nothing(header: bytes) -> None:
    decoder = Decoder({TOPIC: "json"}, Interner(WATCH))
    batch = decoder.decode(Slice(Source(TOPIC, 0), [as_json()], [7], [-1], {0: header}))
    assert (len(batch.columns), batch.rejects) == (1, [])


def test_rejects_keep_their_offsets_when_formats_alternate() -> None:
    decoder = Decoder({TOPIC: "json"}, Interner(WATCH))
    headers = {1: b"application/x-ndjson", 3: b"application/vnd.flipback.columnar+msgpack"}
    values = [b"{", as_json() + b"\n{\n" + as_json(), None, b"\xc0", as_json()]
    batch = decoder.decode(Slice(Source(TOPIC, 3), values, [10, 12, 13, 20, 21], [-1] * 5, headers))
    assert [(r.source, r.offset, r.kind, r.rows) for r in batch.rejects] == [
        (Source(TOPIC, 3), 10, "malformed", 1),
        (Source(TOPIC, 3), 12, "malformed", 1),
        (Source(TOPIC, 3), 13, "empty", 1),
        (Source(TOPIC, 3), 20, "malformed", 1),
    ]
    assert batch.columns.record.tolist() == [1, 1, 4]


def test_the_documented_content_types_are_known() -> None:
    assert set(CONTENT_TYPES.values()) == {"json", "ndjson", "columnar", "counters"}


@given(st.lists(st.lists(samples, max_size=4), max_size=6))
def test_a_json_record_may_be_an_array_after_all(groups: list[list[Sample]]) -> None:
    ordered = iter(sorted((sample for group in groups for sample in group), key=lambda sample: sample.ts))
    groups = [[next(ordered) for _ in group] for group in groups]
    values = [
        records_of(group, "json")[0] if len(group) == 1 else b" " + (records_of(group, "json-array", 9) or [b"[]"])[0]
        for group in groups
    ]
    stage = Stage("json")
    stage.take(values)
    assert stage.rejects == {}
    assert stage.close() == count(sample for group in groups for sample in group)


NEARLY: list[bytes] = [
    as_json() + as_json(),
    as_json() + b"," + as_json(),
    as_json() + b"\n" + as_json(),
    as_json()[:-1],
    as_json()[1:],
    b"",
    b" ",
    b"null",
    b"7",
    b'"' + b"x" * 9,
    b'{"a":[{}',
    b"{}]}",
    b'{"a":"}',
    b'{"}',
    b"\xef\xbb\xbf" + as_json(),
    b"\xff" + as_json(),
    b'{"ts":1700000000.5,"service":"\\ud800"}',
    b'{"ts":1700000000.5,"service":"\xed\xa0\x80"}',
    b'{"ts":1700000000.5,"service":"cart","x":' + b"[" * 100_000 + b"}",
    b'{"ts":1700000000.5,"service":"cart","flags":' + b"[" * 100_000 + b"}",
]


@given(st.lists(st.sampled_from([*NEARLY, as_json()]), max_size=12))
def test_no_record_changes_how_its_neighbours_are_read(values: list[bytes]) -> None:
    stage = Stage("json")
    stage.take(values)
    good = [index for index, value in enumerate(values) if value == as_json()]
    assert set(stage.rejects) == set(range(len(values))) - set(good)
    assert [cell.counts["requests"] for cell in stage.close().values()] == [len(good)] * bool(good)


@pytest.mark.parametrize("form", ["json-array", "ndjson"])
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_rows_are_rejected_by_their_place_in_the_record(form: Format, good: list[bool]) -> None:
    rows = [as_json() if one else as_json(n=0) for one in good]
    value = b"[" + b",".join(rows) + b"]" if form == "json-array" else b"\n".join(rows)
    stage = Stage(form)
    stage.take([value])
    bad = [index for index, one in enumerate(good) if not one]
    if bad:
        reason = stage.reasons[0]
        assert all(f"row {index}: " in reason for index in bad[:3])
        assert reason.count("row ") == min(3, len(bad))
        assert (f"{len(bad)} rows: " in reason) == (len(bad) > 1)
    assert sum(cell.counts["requests"] for cell in stage.close().values()) == len(good) - len(bad)


def test_blank_lines_and_carriage_returns_of_ndjson_are_nothing() -> None:
    stage = Stage("ndjson")
    stage.take([b"\n" + as_json() + b"\r\n\n \t\n" + as_json() + b"\n\n", b"", b"\n"])
    assert stage.rejects == {}
    assert [cell.counts["requests"] for cell in stage.close().values()] == [2]


@pytest.mark.parametrize("timestamp", [-1, 0, 5, 10**18])
def test_a_record_without_a_sane_time_takes_no_sample_anywhere(timestamp: int) -> None:
    stage = Stage("json")
    stage.take([as_json()], timestamp=timestamp)
    assert [second for _, second in stage.close()] == [T0]
    assert stage.reducer.stats.clamped == 0


def test_a_sample_two_seconds_ahead_of_its_record_stays_where_it_is() -> None:
    stage = Stage("json")
    stage.take([as_json(ts=T0 + 2.0), as_json(ts=T0 + 2.001)], timestamp=T0 * 1000)
    assert sorted(second - T0 for _, second in stage.close()) == [0, 2]
