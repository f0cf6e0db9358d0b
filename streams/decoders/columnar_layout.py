"""The layout of a columnar batch: turns its bytes into arrays, or raises `Damaged` if they do not fit together.

Values are not checked here, but in `columnar_batches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta, Raw

from detectors.arrays import Float, Int
from streams.decoders.columnar_lists import (
    LONGEST_LIST,
    Damaged,
    instance_numbers,
    numbers_of_kinds,
    profile_numbers,
)
from streams.decoders.columns import NO_IDS, NO_MEASURES, Columns, Text
from streams.decoders.interner import Interner, Table
from streams.telemetry.columnar import PLAIN_VERSION, VERSION, MeasureColumn
from streams.telemetry.sample import MAX_RECORD_BYTES, STARTED_KIND

_MOST_IDS: Final = MAX_RECORD_BYTES // 14
"""Ids in a record at most: each takes 14 bytes, 8 for its sample's time, 4 for the row and 2 for itself."""
UNTIMED: Final = float(np.nextafter(np.finfo(np.float64).min, 0))
"""Stands for an absent latency until all are checked; nan cannot, because it may have been sent."""


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """`columnar.ColumnarBatch` with encoded lists: a list that was met before is found by its bytes, not decoded."""

    version: int
    n: int
    ts: bytes
    profiles: Raw
    profile: bytes
    instances: Raw
    instance: bytes
    kinds: Raw
    kind: bytes
    latency_ms: bytes
    timed: bytes
    weight: bytes
    measures: Annotated[list[MeasureColumn], Meta(max_length=LONGEST_LIST)]
    id_rows: bytes = b""
    ids: Annotated[list[object], Meta(max_length=_MOST_IDS)] = msgspec.field(default_factory=list)
    started: bytes = b""


_batch: Final = msgspec.msgpack.Decoder(Batch).decode
_header: Final = msgspec.msgpack.Decoder(list[Raw]).decode
_WIDTHS: Final = {1: "<u1", 2: "<u2", 4: "<u4"}


def read_batch(value: bytes) -> Batch:
    """Decode a batch. Raises Damaged, or msgspec's errors, ValueError and RecursionError for other bytes."""
    try:
        batch = _batch(value)
    except msgspec.ValidationError:
        # Another version may differ in everything except the place of its number.
        header = _header(value)
        if not header:
            raise
        version = msgspec.msgpack.decode(header[0], type=int)
        _check_version(version)
        raise
    _check_version(batch.version)
    if batch.n < 0 or len(batch.ts) != 8 * batch.n:
        raise Damaged(f"ts has {len(batch.ts)} bytes, expected 8 for each of {batch.n} samples")
    return batch


def _check_version(version: int) -> None:
    if version not in (PLAIN_VERSION, VERSION):
        raise Damaged(f"version {version}, expected {PLAIN_VERSION} or {VERSION}") from None


def columns_of(index: int, batch: Batch, interner: Interner, table: Table) -> Columns:
    """The samples as they were sent, of record `index`.

    `kind` has the bits of KIND_FAULTS, and an id that is not a text is None.
    """
    n = batch.n
    rows, numbers, measured = _measures(n, batch.measures, interner)
    id_row, ids = _ids(n, batch)
    kind = _looked_up("kind", n, batch.kind, table.listed(b"k", bytes(batch.kinds), numbers_of_kinds))
    if batch.started:
        kind[id_row[np.frombuffer(batch.started, dtype=np.uint8) != 0]] = STARTED_KIND
    return Columns(
        record=np.full(n, index, dtype=np.int64),
        ts=np.frombuffer(batch.ts, dtype="<f8"),
        profile=_looked_up("profile", n, batch.profile, table.listed(b"p", bytes(batch.profiles), profile_numbers)),
        instance=_looked_up(
            "instance", n, batch.instance, table.listed(b"i", bytes(batch.instances), instance_numbers)
        ),
        kind=kind,
        n=_weights(n, batch.weight),
        latency_ms=_latencies(n, batch.latency_ms, batch.timed),
        measure_row=rows,
        measure_id=numbers,
        measure_value=measured,
        id_row=id_row,
        ids=ids,
    )


def _looked_up(name: str, n: int, raw: bytes, numbers: Int) -> Int:
    """Replace each index of a column by its entry of `numbers`; shape (n,)."""
    if not raw:
        if not len(numbers) and n:
            raise Damaged(f"no {name} is listed, but there are samples")
        return np.full(n, numbers[0] if n else 0, dtype=np.int64)
    width = _WIDTHS.get(len(raw) // n if n else 0)
    if width is None or len(raw) % n:
        raise Damaged(f"{name} has {len(raw)} bytes, expected 1, 2 or 4 for each of {n} samples")
    indices = np.frombuffer(raw, dtype=width)
    try:
        return numbers.take(indices)
    except IndexError:
        raise Damaged(f"{name} has index {int(indices.max())}, but {len(numbers)} are listed") from None


def _latencies(n: int, raw: bytes, timed: bytes) -> Float:
    if not raw and not timed:
        return np.full(n, UNTIMED)
    if len(raw) != 8 * n:
        raise Damaged(f"latency_ms has {len(raw)} bytes, expected none, or 8 for each of {n} samples")
    latency = np.frombuffer(raw, dtype="<f8")
    if not timed:
        return latency
    if len(timed) != n:
        raise Damaged(f"timed has {len(timed)} bytes, expected none, or 1 for each of {n} samples")
    return np.where(np.frombuffer(timed, dtype=np.uint8) != 0, latency, UNTIMED)


def _weights(n: int, raw: bytes) -> Int:
    if not raw:
        return np.ones(n, dtype=np.int64)
    if len(raw) != 4 * n:
        raise Damaged(f"weight has {len(raw)} bytes, expected none, or 4 for each of {n} samples")
    return np.frombuffer(raw, dtype="<u4").astype(np.int64)


def _ids(n: int, batch: Batch) -> tuple[Int, Text]:
    """Row and id of every sample that has an id."""
    if not batch.ids and not batch.id_rows and not batch.started:
        return NO_IDS
    if len(batch.id_rows) != 4 * len(batch.ids) or len(batch.started) not in (0, len(batch.ids)):
        sizes = f"{len(batch.id_rows)} bytes of rows and {len(batch.started)} of started"
        raise Damaged(f"{len(batch.ids)} ids have {sizes}, expected 4 and 1 for each")
    rows = np.frombuffer(batch.id_rows, dtype="<u4").astype(np.int64)
    if int(rows[-1]) >= n or not (rows[1:] > rows[:-1]).all():
        raise Damaged(f"rows of ids do not ascend, or pass the {n} samples")
    ids = np.empty(len(rows), dtype=object)
    ids[:] = [name if isinstance(name, str) else None for name in batch.ids]
    return rows, ids


def _measures(n: int, columns: Sequence[MeasureColumn], interner: Interner) -> tuple[Int, Int, Float]:
    """Row, measure number and value of every measure, sorted by row."""
    if not columns:
        return NO_MEASURES
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise Damaged("a measure is listed twice")
    rows, numbers, values = [], [], []
    for column in columns:
        if len(column.rows) % 4 or len(column.values) != 2 * len(column.rows):
            sizes = f"{len(column.rows)} bytes of rows and {len(column.values)} of values"
            raise Damaged(f"measure {column.name!r} has {sizes}, expected 4 and 8 for each")
        row = np.frombuffer(column.rows, dtype="<u4").astype(np.int64)
        if len(row) and (int(row[-1]) >= n or not (row[1:] > row[:-1]).all()):
            raise Damaged(f"rows of measure {column.name!r} do not ascend, or pass the {n} samples")
        rows.append(row)
        numbers.append(np.full(len(row), interner.measures[column.name], dtype=np.int64))
        values.append(np.frombuffer(column.values, dtype="<f8"))
    if len(rows) == 1:
        return rows[0], numbers[0], values[0]
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    return row[order], np.concatenate(numbers)[order], np.concatenate(values)[order]
