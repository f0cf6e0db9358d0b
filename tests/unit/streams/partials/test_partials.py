"""A partial that is encoded and decoded is unchanged, and bytes that are no partial are rejected."""

from __future__ import annotations

from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cell_operations import empty
from detectors.cells import NO_OUTCOME, REJECTED, Cells
from streams.errors import PartialError
from streams.partials.decode import decode, decode_all, unpack
from streams.partials.packing import pack
from streams.partials.partitions import MAX_CELLS, partition_of, split
from streams.partials.record import VERSION, Partial, encode
from tests.support.random_cells import cells_of, random_cells


def partial_with(cells: Cells, **changes: object) -> Partial:
    values: dict[str, object] = {
        "version": VERSION,
        "topic": "requests",
        "partition": 3,
        "partitions": 8,
        "owner": "a",
        "sent_at": 1_700_000_000.25,
        "watermark": 1_700_000_001.0,
        "caught_up": True,
        "overflow": 0,
        "scopes": [tuple(scope) for scope in cells.scopes],
        "instances": list(cells.instances),
        "measures": list(cells.measures),
        "columns": pack(cells),
    }
    return Partial(**(values | changes))  # type: ignore[arg-type]


def assert_same(one: Cells, other: Cells) -> None:
    for field in fields(Cells):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, tuple):
            assert a == b, field.name
        else:
            np.testing.assert_array_equal(a, b, err_msg=field.name)


@given(random_cells())
def test_cells_survive_the_wire(cells: Cells) -> None:
    sent = partial_with(cells)
    received, unpacked = decode(encode(sent))
    assert received == sent
    assert_same(unpacked, cells)


@given(random_cells(), st.integers(1, 7))
def test_splitting_by_partition_loses_nothing_and_keeps_a_service_together(cells: Cells, partitions: int) -> None:
    total = 0
    for partition, part in split(cells, partitions):
        total += len(part)
        for scope in part.scopes:
            assert partition_of(scope.environment, scope.service, partitions) == partition
        assert_same(part, unpack(partial_with(part)))
    assert total == len(cells)
    assert sum(int(p.counts.sum()) for _, p in split(cells, partitions)) == int(cells.counts.sum())
    assert sum(int(p.hist_count.sum()) for _, p in split(cells, partitions)) == int(cells.hist_count.sum())


def test_a_large_flush_is_cut_into_records_of_bounded_size() -> None:
    cells = cells_of([("production", f"s{i}", 1_700_000_000, 1, 0) for i in range(MAX_CELLS + 1)])
    assert [len(part) for _, part in split(cells, 1)] == [MAX_CELLS, 1]


def test_the_partition_of_a_service_never_changes() -> None:
    assert partition_of("production", "recommendations", 8) == 4
    assert partition_of("production", "checkout", 8) == 5


@given(st.binary(max_size=300))
def test_bytes_that_are_no_partial_are_refused(raw: bytes) -> None:
    with pytest.raises(PartialError):
        decode(raw)


@given(random_cells(least=1), st.data())
def test_a_damaged_partial_is_refused_or_read_never_a_crash(cells: Cells, data: st.DataObject) -> None:
    raw = bytearray(encode(partial_with(cells)))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    try:
        _, unpacked = decode(bytes(raw))
    except PartialError:
        return
    assert unpacked.scope.size == 0 or unpacked.scope.max() < len(unpacked.scopes)


def test_a_newer_version_is_named_in_the_refusal() -> None:
    with pytest.raises(PartialError, match="version 3, expected 2"):
        decode(encode(partial_with(empty(), version=3)))


NEW = (NO_OUTCOME, REJECTED)


@given(random_cells())
def test_a_partial_of_version_1_is_read_and_counts_nothing_that_it_could_not_tell(cells: Cells) -> None:
    columns = pack(
        replace(
            cells,
            counts=np.delete(cells.counts, NEW, axis=1),
            instance_counts=np.delete(cells.instance_counts, NEW, axis=1),
        )
    )
    written = msgspec.structs.astuple(partial_with(cells, version=1, columns=columns))[:-2]
    received, unpacked = decode(msgspec.msgpack.encode(written))
    assert (received.received, received.rejected) == (0, 0)
    cells.counts[:, NEW] = cells.instance_counts[:, NEW] = 0
    assert_same(unpacked, cells)
    batch, errors = decode_all([msgspec.msgpack.encode(written), encode(partial_with(cells))])
    assert not errors
    assert batch.cells.counts.tolist() == 2 * cells.counts.tolist()


def test_what_a_source_received_and_could_not_read_is_passed_on() -> None:
    batch, _ = decode_all([encode(partial_with(empty(), received=100, rejected=7))])
    assert (batch.heads[0].received, batch.heads[0].rejected) == (100, 7)
