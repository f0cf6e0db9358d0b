"""The columnar batch, byte by byte: batches that other writers may send, and how damaged ones are rejected."""

from __future__ import annotations

import math
import struct
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.telemetry.columnar import PLAIN_VERSION, VERSION, ColumnarBatch, encode
from streams.telemetry.sample import MAX_RECORD_BYTES, Sample
from tests.support.samples import T0, CellCounts, Stage, count, records_of, samples


def written_by_hand(**changes: Any) -> bytes:
    """Three samples, encoded as docs/telemetry-formats.md describes, with some elements changed."""
    elements: dict[str, Any] = {
        "version": 1,
        "n": 3,
        "ts": struct.pack("<3d", T0 + 0.25, T0 + 0.5, T0 + 1.5),
        "profiles": [[None, "cart", {"new": "on"}], ["staging", "shop", {}]],
        "profile": bytes([0, 1, 0]),
        "instances": ["", "i-1"],
        "instance": struct.pack("<3H", 1, 0, 0),
        "kinds": [[503, None, "hit"], [None, "ok", None]],
        "kind": struct.pack("<3I", 0, 1, 1),
        "latency_ms": struct.pack("<3d", 12.5, 0.0, 7.0),
        "timed": bytes([1, 0, 1]),
        "weight": struct.pack("<3I", 1, 10, 1),
        "measures": [["score", struct.pack("<2I", 0, 2), struct.pack("<2d", 0.5, -1.0)]],
    }
    return msgspec.msgpack.encode(list((elements | changes).values()))


def identified(**changes: Any) -> bytes:
    """The same samples in version 2: the first is the start of request a, the third the end of request b."""
    ids: dict[str, Any] = {"id_rows": struct.pack("<2I", 0, 2), "ids": ["a", "b"], "started": bytes([1, 0])}
    return written_by_hand(**({"version": 2} | ids | changes))


BY_HAND = [
    Sample(
        ts=T0 + 0.25,
        service="cart",
        flags={"new": "on"},
        instance="i-1",
        status=503,
        cache="hit",
        latency_ms=12.5,
        measures={"score": 0.5},
    ),
    Sample(ts=T0 + 0.5, service="shop", environment="staging", outcome="ok", n=10),
    Sample(ts=T0 + 1.5, service="cart", flags={"new": "on"}, outcome="ok", latency_ms=7.0, measures={"score": -1.0}),
]


def test_a_batch_written_by_hand_is_read_as_documented() -> None:
    stage = Stage("columnar")
    stage.take([written_by_hand()])
    assert stage.rejects == {}
    assert stage.close() == count(BY_HAND)


def test_the_encoder_writes_the_documented_elements() -> None:
    batch = msgspec.msgpack.decode(encode(BY_HAND))
    assert len(batch) == 13
    assert batch[:3] == [PLAIN_VERSION, 3, struct.pack("<3d", T0 + 0.25, T0 + 0.5, T0 + 1.5)]
    assert batch[3:5] == [[[None, "cart", {"new": "on"}], ["staging", "shop", {}]], bytes([0, 1, 0])]
    assert batch[5:7] == [["", "i-1"], bytes([1, 0, 0])]
    assert batch[7:9] == [[[None, "ok", None], [503, None, "hit"]], bytes([1, 0, 0])]
    assert batch[9:12] == [struct.pack("<3d", 12.5, 0, 7), bytes([1, 0, 1]), struct.pack("<3I", 1, 10, 1)]
    assert batch[12] == [["score", struct.pack("<2I", 0, 2), struct.pack("<2d", 0.5, -1.0)]]


def test_columns_that_say_nothing_are_empty() -> None:
    batch = msgspec.msgpack.decode(encode([Sample(ts=T0, service="cart")] * 9), type=ColumnarBatch)
    empty = (batch.profile, batch.instance, batch.kind, batch.latency_ms, batch.timed, batch.weight, batch.measures)
    assert empty == (b"", b"", b"", b"", b"", b"", [])


@given(st.lists(samples, min_size=1, max_size=10), st.randoms())
def test_the_lists_do_not_depend_on_the_order_of_the_samples(given_samples: list[Sample], rng: Any) -> None:
    def lists(given_samples: list[Sample]) -> list[Any]:
        batch = msgspec.msgpack.decode(encode(given_samples))
        return [batch[3], batch[5], batch[7]]

    shuffled = rng.sample(given_samples, len(given_samples))
    assert lists(shuffled) == lists(given_samples)


@pytest.mark.parametrize("width", [255, 256, 257, 65_536, 65_537])
def test_indices_are_as_wide_as_their_list_is_long(width: int) -> None:
    given_samples = [Sample(ts=T0 + 0.5, service="cart", instance=f"i{i:05}") for i in range(width)]
    batch = msgspec.msgpack.decode(encode(given_samples), type=ColumnarBatch)
    assert len(batch.instance) == width * (1 if width <= 256 else 2 if width <= 65_536 else 4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 3}, "version 3, expected 1 or 2"),
        ({"version": 3, "profiles": "elsewhere"}, "version 3, expected 1 or 2"),
        ({"n": 2}, "ts has 24 bytes"),
        ({"n": -3}, "ts has 24 bytes"),
        ({"n": 2**40}, "ts has 24 bytes"),
        ({"profile": bytes([0, 2, 0])}, "profile has index 2, but 2 are listed"),
        ({"profile": bytes(4)}, "profile has 4 bytes"),
        ({"profile": bytes(9)}, "profile has 9 bytes"),
        ({"profiles": []}, "profile has index 1, but 0 are listed"),
        ({"profiles": [], "profile": b""}, "no profile is listed"),
        ({"profiles": [[None, "cart", {}]] * 65_537}, "length <= 65536"),
        ({"kinds": [503]}, "a kind is 503, expected [status, outcome, cache]"),
        ({"latency_ms": bytes(16)}, "latency_ms has 16 bytes"),
        ({"latency_ms": b""}, "latency_ms has 0 bytes"),
        ({"timed": bytes(2)}, "timed has 2 bytes"),
        ({"weight": bytes(3)}, "weight has 3 bytes"),
        ({"measures": [["m", bytes(4), bytes(4)]]}, "4 bytes of rows and 4 of values"),
        ({"measures": [["m", bytes(3), bytes(6)]]}, "3 bytes of rows and 6 of values"),
        ({"measures": [["m", bytes(8), bytes(16)]]}, "do not ascend"),
        ({"measures": [["m", struct.pack("<I", 3), bytes(8)]]}, "pass the 3 samples"),
        ({"measures": [["m", b"", b""], ["m", b"", b""]]}, "listed twice"),
        ({"ts": [1.0, 2.0, 3.0]}, "Expected `bytes`"),
    ],
    ids=str,
)
def test_damage_to_the_structure_rejects_the_record_and_says_where(changes: dict[str, Any], reason: str) -> None:
    stage = Stage("columnar")
    stage.take([written_by_hand(), written_by_hand(**changes), written_by_hand()])
    assert stage.rejects == {1: "malformed"}
    assert reason in stage.reasons[1]
    assert stage.close() == count(BY_HAND * 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ts": struct.pack("<3d", T0 + 0.25, math.nan, T0 + 1.5)}, "not nan"),
        ({"ts": struct.pack("<3d", T0 + 0.25, math.inf, T0 + 1.5)}, "not inf"),
        ({"ts": struct.pack("<3d", T0 + 0.25, T0 * 1000.0, T0 + 1.5)}, "is in milliseconds: divide by 1,000"),
        ({"profiles": [[None, "cart", {"new": "on"}], ["staging", "", {}]]}, "service: "),
        ({"profiles": [[None, "cart", {"new": "on"}], ["a\nb", "shop", {}]]}, "environment must be"),
        ({"profiles": [[None, "cart", {"new": "on"}], ["staging", 7, {}]]}, "service: "),
        ({"profiles": [[None, "cart", {"new": "on"}], [7, "shop", {}]]}, "environment must be"),
        ({"weight": struct.pack("<3I", 1, 0, 1)}, "n: must be a whole number from 1 to 1,000,000, not 0"),
        ({"weight": struct.pack("<3I", 1, 1_000_001, 1)}, "not 1000001"),
    ],
    ids=str,
)
def test_a_bad_value_costs_its_row_and_is_named(changes: dict[str, Any], reason: str) -> None:
    stage = Stage("columnar")
    stage.take([written_by_hand(), written_by_hand(**changes)])
    assert stage.rejects == {1: "invalid"}
    assert stage.reasons[1].startswith("row 1: ")
    assert reason in stage.reasons[1]
    cells = stage.close()
    assert sum(cell.counts["requests"] for (scope, _), cell in cells.items() if scope.service == "shop") == 10
    assert cells[BY_HAND_SECOND].counts["requests"] == 2


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({"profiles": [[None, "cart", {"new": "on"}], ["staging", "shop", {"new": 1}]]}, {}),
        ({"profiles": [[None, "cart", {"new": "on"}], ["staging", "shop", 5]]}, {}),
        ({"profiles": [[None, "cart", {"new": 1}], ["staging", "shop", {}]]}, {"flags.new": 2}),
        ({"instances": ["x" * 257, "i-1"], "instance": bytes([1, 0, 1])}, {"instance": 1}),
        ({"instances": [7, "i-1"], "instance": bytes([1, 0, 1])}, {"instance": 1}),
        ({"kinds": [[503, None, "hit"], [None, "fine", None]], "kind": bytes([0, 1, 0])}, {"outcome": 1}),
        ({"kinds": [[503, None, "hit"], [None, 7, None]], "kind": bytes([0, 1, 0])}, {"outcome": 1}),
        ({"kinds": [[503, None, "hit"], [None, None, "warm"]], "kind": bytes([0, 1, 0])}, {"cache": 1}),
        ({"kinds": [[503, None, "hit"], [-1, None, None]], "kind": bytes([0, 1, 0])}, {"status": 1}),
        ({"kinds": [[503, None, "hit"], ["500", None, None]], "kind": bytes([0, 1, 0])}, {"status": 1}),
        ({"latency_ms": struct.pack("<3d", 12.5, -1.0, 7.0), "timed": b""}, {"latency_ms": 1}),
        ({"latency_ms": struct.pack("<3d", 12.5, math.nan, 7.0), "timed": b""}, {"latency_ms": 1}),
        ({"latency_ms": struct.pack("<3d", 12.5, math.nan, 7.0), "timed": bytes([1, 1, 1])}, {"latency_ms": 1}),
        ({"latency_ms": struct.pack("<3d", 12.5, math.inf, 7.0), "timed": b""}, {"latency_ms": 1}),
        ({"latency_ms": struct.pack("<3d", 12.5, -sys.float_info.max, 7.0), "timed": b""}, {"latency_ms": 1}),
        (
            {"measures": [["score", struct.pack("<3I", 0, 1, 2), struct.pack("<3d", 0.5, math.nan, -1)]]},
            {"measures": 1},
        ),
        ({"measures": [["a\nb", struct.pack("<I", 0), struct.pack("<d", 0.5)]]}, {"measures": 1}),
    ],
    ids=str,
)
def test_a_bad_field_that_may_be_absent_costs_that_field(changes: dict[str, Any], dropped: dict[str, int]) -> None:
    stage = Stage("columnar")
    stage.take([written_by_hand(**changes)])
    assert stage.rejects == {}
    assert stage.dropped() == dropped
    whole = [cell.counts["requests"] for (scope, _), cell in stage.close().items() if not scope.flag]
    assert sum(whole) == sum(sample.n or 1 for sample in BY_HAND)


def test_a_batch_of_requests_told_apart_is_read_as_documented() -> None:
    stage = Stage("columnar")
    stage.take([identified()])
    assert stage.rejects == {}
    # The start of a request adds to no count.
    assert stage.close() == count(BY_HAND[1:])


def test_the_encoder_writes_the_documented_elements_of_requests_told_apart() -> None:
    started = Sample(ts=T0 + 0.25, service="cart", kind="started", id="a")
    ended = Sample(ts=T0 + 0.5, service="cart", id="b")
    batch = msgspec.msgpack.decode(encode([started, Sample(ts=T0, service="cart"), ended]))
    assert len(batch) == 16
    assert batch[0] == VERSION
    assert batch[13:] == [struct.pack("<2I", 0, 2), ["a", "b"], bytes([1, 0])]
    assert msgspec.msgpack.decode(encode([ended]))[13:] == [struct.pack("<I", 0), ["b"], b""]


def test_a_start_without_an_id_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="needs an id"):
        encode([Sample(ts=T0, service="cart", kind="started"), Sample(ts=T0, service="cart", id="a")])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id_rows": struct.pack("<I", 0)}, "2 ids have 4 bytes of rows and 2 of started"),
        ({"ids": []}, "0 ids have 8 bytes of rows and 2 of started"),
        ({"started": bytes(3)}, "2 ids have 8 bytes of rows and 3 of started"),
        ({"id_rows": b"", "ids": []}, "0 ids have 0 bytes of rows and 2 of started"),
        ({"id_rows": struct.pack("<2I", 2, 0)}, "rows of ids do not ascend"),
        ({"id_rows": struct.pack("<2I", 0, 3)}, "pass the 3 samples"),
        ({"ids": ["a"] * 300_000}, "length <= 299593"),
    ],
    ids=str,
)
def test_damage_to_the_ids_rejects_the_record_and_says_where(changes: dict[str, Any], reason: str) -> None:
    stage = Stage("columnar")
    stage.take([identified(**changes), written_by_hand()])
    assert stage.rejects == {0: "malformed"}
    assert reason in stage.reasons[0]
    assert stage.close() == count(BY_HAND)


@pytest.mark.parametrize(
    ("changes", "rejected"),
    [
        # Row 0 is a start, which is rejected without an id; row 2 is the end of a request, which counts all the same.
        ({"ids": ["a", ""]}, {}),
        ({"ids": ["a", "x" * 129]}, {}),
        ({"ids": ["a", 7]}, {}),
        ({"weight": struct.pack("<3I", 1, 10, 2)}, {}),
        ({"ids": ["", "b"]}, {"rejected": 1}),
        ({"ids": [7, "b"]}, {"rejected": 1}),
        ({"weight": struct.pack("<3I", 2, 10, 1)}, {"rejected": 2}),
        ({"kinds": [[1000, None, None], [None, "ok", None]]}, {}),
    ],
    ids=str,
)
def test_a_bad_id_costs_the_id_and_a_start_without_one_is_rejected(
    changes: dict[str, Any], rejected: dict[str, int]
) -> None:
    stage = Stage("columnar")
    stage.take([identified(**changes)])
    assert stage.rejects == ({0: "invalid"} if rejected else {})
    cells = stage.close()
    assert cells.pop(BY_HAND_SECOND, CellCounts()).counts == rejected
    weight = 2 if changes.get("weight") == struct.pack("<3I", 1, 10, 2) else 1
    assert {key[1]: cell.counts["requests"] for key, cell in cells.items() if not key[0].flag} == {
        T0: 10,
        T0 + 1: weight,
    }


BY_HAND_SECOND = next(key for key in count(BY_HAND) if key[0].service == "cart" and key[1] == T0)


def test_what_is_not_timed_may_hold_anything() -> None:
    stage = Stage("columnar")
    stage.take([written_by_hand(latency_ms=struct.pack("<3d", 12.5, math.nan, 7.0))])
    assert stage.rejects == {}
    assert stage.close() == count(BY_HAND)


def test_bad_rows_of_a_record_are_one_entry_that_counts_them() -> None:
    good, bad = Sample(ts=T0 + 0.5, service="cart"), Sample(ts=5.0, service="cart")
    stage = Stage("columnar")
    stage.take(records_of([good, bad, bad, good, bad], "columnar", 5))
    assert (
        stage.reasons[0]
        == "3 rows: row 1 and 2 more: ts: must be Unix seconds between the years 2000 and 2100, not 5.0"
    )
    assert stage.close() == count([good] * 2)


def test_a_record_cannot_ask_for_more_memory_than_it_has_bytes() -> None:
    stage = Stage("columnar")
    huge = bytes.fromhex("dd00ffffff")
    stage.take([huge, written_by_hand(profiles=[])[:20] + huge, b"\x91" * MAX_RECORD_BYTES])
    assert stage.rejects == {0: "malformed", 1: "malformed", 2: "malformed"}
