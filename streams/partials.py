"""The record between the stages: one source partition's closed seconds for one partials partition, as packed columns.

Wire format: MessagePack array (`Partial`, version first). A column of integers travels as little-endian bytes in the
narrowest width that holds it, after subtracting its least value; that makes a cell of a quiet scope about 40 bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import fields, replace

import msgspec
import numpy as np

from detectors.cells import COUNTS, Cells, Int, Scope
from streams.errors import PartialError
from streams.slices import Source

VERSION = 1
MAX_CELLS = 4000
"""Cells a record holds at most; at about 100 bytes a busy cell it stays under Kafka's default limit of 1 MB."""
_WIDTHS = ("<u1", "<u2", "<u4", "<i8")
_COLUMNS = tuple(f.name for f in fields(Cells) if f.name not in ("scopes", "instances", "measures"))
_WIDE = {"counts", "instance_counts"}


class Column(msgspec.Struct, array_like=True, frozen=True):
    """`data` holds unsigned (or, at width 3, signed) integers; the value is each plus `least`."""

    width: int
    least: int
    data: bytes


class Partial(msgspec.Struct, array_like=True, frozen=True):
    """What an owner of a source partition says to one partials partition.

    `partitions` counts the topic's partitions, so that a monitor knows from whom it must hear. `watermark` is in Unix
    seconds, None while unknown or where more records of the same flush follow. `sent_at` is the owner's wall clock,
    `overflow` counts samples since the last flush that found no room within `max_scopes`.
    """

    version: int
    topic: str
    partition: int
    partitions: int
    owner: str
    sent_at: float
    watermark: float | None
    caught_up: bool
    overflow: int
    scopes: list[tuple[str, str, str, str]]
    instances: list[str]
    measures: list[str]
    columns: list[Column]

    @property
    def source(self) -> Source:
        return Source(self.topic, self.partition)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Partial)


def partition_of(environment: str, service: str, partitions: int) -> int:
    """The partials partition in which a service, its flags and all their variants meet; stable across versions."""
    return zlib.crc32(f"{environment}\0{service}".encode()) % partitions


def encode(partial: Partial) -> bytes:
    return _encoder.encode(partial)


def decode(raw: bytes) -> tuple[Partial, Cells]:
    """Read a partial and its cells; `PartialError` for anything that is not one."""
    try:
        partial = _decoder.decode(raw)
        if partial.version != VERSION:
            raise PartialError(f"partial has version {partial.version}, expected {VERSION}: update the older side")
        return partial, unpack(partial)
    except (msgspec.MsgspecError, ValueError, IndexError, TypeError, OverflowError) as error:
        raise PartialError(f"partial of {len(raw)} bytes cannot be read: {error}") from error


def pack(cells: Cells) -> list[Column]:
    return [_column(getattr(cells, name)) for name in _COLUMNS]


def unpack(partial: Partial) -> Cells:
    """The cells of a partial; raises ValueError where lengths or references do not fit together."""
    if not partial.columns:
        return empty()
    if len(partial.columns) != len(_COLUMNS):
        raise ValueError(f"{len(partial.columns)} columns, expected {len(_COLUMNS)}")
    arrays = {name: _values(column) for name, column in zip(_COLUMNS, partial.columns, strict=True)}
    for name in _WIDE:
        arrays[name] = arrays[name].reshape(-1, len(COUNTS))
    cells = Cells(
        scopes=tuple(map(Scope._make, partial.scopes)),
        instances=tuple(partial.instances),
        measures=tuple(partial.measures),
        **arrays,
    )
    n = len(cells)
    _same(n, cells.scope, cells.offset, cells.counts)
    _same(len(cells.hist_cell), cells.hist_bin, cells.hist_count)
    _same(len(cells.instance_cell), cells.instance_id, cells.instance_counts)
    _same(len(cells.measure_cell), cells.measure_id, cells.measure_count, cells.measure_sum)
    _within(cells.scope, len(cells.scopes))
    _within(cells.instance_id, len(cells.instances))
    _within(cells.measure_id, len(cells.measures))
    for rows in (cells.hist_cell, cells.instance_cell, cells.measure_cell):
        _within(rows, n)
    return cells


def split(cells: Cells, partitions: int) -> Iterator[tuple[int, Cells]]:
    """Give each partials partition that has any its cells, in parts of at most `MAX_CELLS`."""
    if not len(cells):
        return
    target = np.array([partition_of(s.environment, s.service, partitions) for s in cells.scopes], dtype=np.int64)
    of_row = target[cells.scope]
    for partition in np.unique(of_row).tolist():
        rows = np.flatnonzero(of_row == partition)
        for start in range(0, len(rows), MAX_CELLS):
            yield partition, select(cells, rows[start : start + MAX_CELLS])


def select(cells: Cells, rows: Int) -> Cells:
    """The given rows with what belongs to them; tables are cut to what is still named."""
    new_row = np.full(len(cells), -1, dtype=np.int64)
    new_row[rows] = np.arange(len(rows))
    hist = np.flatnonzero(new_row[cells.hist_cell] >= 0)
    instance = np.flatnonzero(new_row[cells.instance_cell] >= 0)
    measure = np.flatnonzero(new_row[cells.measure_cell] >= 0)
    scopes, scope = np.unique(cells.scope[rows], return_inverse=True)
    instances, instance_id = np.unique(cells.instance_id[instance], return_inverse=True)
    return replace(
        cells,
        scopes=tuple(cells.scopes[i] for i in scopes.tolist()),
        scope=scope.astype(np.int64),
        second=cells.second[rows],
        offset=cells.offset[rows],
        counts=cells.counts[rows],
        hist_cell=new_row[cells.hist_cell[hist]],
        hist_bin=cells.hist_bin[hist],
        hist_count=cells.hist_count[hist],
        instances=tuple(cells.instances[i] for i in instances.tolist()),
        instance_cell=new_row[cells.instance_cell[instance]],
        instance_id=instance_id.astype(np.int64),
        instance_counts=cells.instance_counts[instance],
        measure_cell=new_row[cells.measure_cell[measure]],
        measure_id=cells.measure_id[measure],
        measure_count=cells.measure_count[measure],
        measure_sum=cells.measure_sum[measure],
    )


def empty() -> Cells:
    """Cells without a row."""
    none = np.zeros(0, dtype=np.int64)
    arrays = {name: none.reshape(0, len(COUNTS)) if name in _WIDE else none for name in _COLUMNS}
    return Cells(scopes=(), instances=(), measures=(), **arrays)


def _column(values: Int) -> Column:
    if not values.size:
        return Column(0, 0, b"")
    least = int(values.min())
    spread = int(values.max()) - least
    width = 0 if spread < 1 << 8 else 1 if spread < 1 << 16 else 2 if spread < 1 << 32 else 3
    # A span of more than 63 bits cannot be shifted without overflow; such a column keeps its values.
    if spread >= 1 << 63:
        return Column(3, 0, values.astype("<i8").tobytes())
    return Column(width, least, (values - least).astype(_WIDTHS[width]).tobytes())


def _values(column: Column) -> Int:
    return np.frombuffer(column.data, dtype=_WIDTHS[column.width]).astype(np.int64) + column.least


def _same(length: int, *arrays: Int) -> None:
    if any(len(array) != length for array in arrays):
        raise ValueError(f"columns have {[len(array) for array in arrays]} rows, expected {length}")


def _within(indices: Int, size: int) -> None:
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= size):
        raise ValueError(f"an index of {int(indices.max())} points outside a table of {size}")
