"""The record between the stages: one source partition's closed seconds for one partials partition, as packed columns.

Wire format: MessagePack array (`Partial`, version first). A column of integers travels as little-endian bytes in the
narrowest width that holds it, after subtracting its least value; that makes a cell of a quiet scope about 40 bytes.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, count, groupby
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from detectors.arrays import Int
from detectors.cells import COUNTS, Cells, Scope
from streams.errors import PartialError
from streams.slices import Source
from streams.unreadable import UNREADABLE

VERSION = 2
NARROW: Final = {1: 9}
"""Columns of counts in older versions that are still read, the first ones of COUNTS; the others count nothing there."""
MAX_CELLS = 4000
"""Cells a record holds at most; at about 100 bytes a busy cell it stays under Kafka's default limit of 1 MB."""
_WIDTHS = ("<u1", "<u2", "<u4", "<i8")
_SIZES = tuple(np.dtype(width).itemsize for width in _WIDTHS)
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
    seconds, None while unknown or where more records of the same flush follow. `sent_at` is the owner's wall clock.
    The last record of a flush tells of the samples since the flush before: `overflow` found no room within
    `max_scopes`; of the `received` ones, `rejected` are counted nowhere, because it cannot be read whose they are.
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
    received: int = 0
    rejected: int = 0

    @property
    def source(self) -> Source:
        return Source(self.topic, self.partition)


K = TypeVar("K", tuple[str, str, str, str], str)

_DAMAGE = (*UNREADABLE, TypeError, OverflowError)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Partial)


def partition_of(environment: str, service: str, partitions: int) -> int:
    """The partials partition in which a service, its flags and all their variants meet; stable across versions."""
    return zlib.crc32(f"{environment}\0{service}".encode()) % partitions


def encode(partial: Partial) -> bytes:
    return _encoder.encode(partial)


class PartialHead(NamedTuple):
    """What a partial says beside its cells; the fields are those of `Partial`."""

    source: Source
    partitions: int
    watermark: float | None
    overflow: int
    received: int = 0
    rejected: int = 0
    caught_up: bool = True

    @classmethod
    def of(cls, partial: Partial) -> PartialHead:
        told = partial.overflow, partial.received, partial.rejected, partial.caught_up
        return cls(partial.source, partial.partitions, partial.watermark, *told)


@dataclass(frozen=True, slots=True)
class PartialBatch:
    """Partials in the order of the log with their cells as one block; row i of it came in partial `record[i]`."""

    words: Sequence[PartialHead]
    cells: Cells
    record: Int

    def part(self, start: int, end: int) -> PartialBatch:
        """Partials `start` to before `end`, and their cells."""
        if start == 0 and end == len(self.words):
            return self
        rows = np.arange(*np.searchsorted(self.record, (start, end)))
        return PartialBatch(self.words[start:end], select(self.cells, rows), self.record[rows] - start)


def decode(raw: bytes) -> tuple[Partial, Cells]:
    """Read a partial and its cells; `PartialError` for anything that is not one."""
    try:
        partial = _decode(raw)
        return partial, unpack(partial)
    except _DAMAGE as error:
        raise _unreadable(raw, error) from error


def decode_all(raws: Sequence[bytes]) -> tuple[PartialBatch, list[PartialError]]:
    """Read partials, and say of each that cannot be read what is wrong with it; the batch has the others."""
    unpacking, errors = _Unpacking(), []
    for raw in raws:
        try:
            unpacking.add(_decode(raw))
        except _DAMAGE as error:
            errors.append(_unreadable(raw, error))
    try:
        return unpacking.batch(), errors
    except _DAMAGE as error:
        if len(raws) == 1:
            return _Unpacking().batch(), [_unreadable(raws[0], error)]
    # One of many is damaged: which, each tells by itself.
    alone = [(raw, decode_all([raw])[1]) for raw in raws]
    whole, _ = decode_all([raw for raw, found in alone if not found])
    return whole, [error for _, found in alone for error in found]


def _decode(raw: bytes) -> Partial:
    partial = _decoder.decode(raw)
    if partial.version in NARROW:
        return _widened(partial, NARROW[partial.version])
    if partial.version != VERSION:
        raise ValueError(f"it has version {partial.version}, expected {VERSION}: update the older side")
    return partial


def _widened(partial: Partial, narrow: int) -> Partial:
    """The partial as of today, with zeros in the columns of counts that it lacks."""
    if len(partial.columns) != len(_COLUMNS):
        return msgspec.structs.replace(partial, version=VERSION)
    columns = list(partial.columns)
    for at in map(_COLUMNS.index, sorted(_WIDE)):
        (values, (length,)) = _values([columns[at]])
        if length % narrow:
            raise ValueError(f"{_COLUMNS[at]} has {length} numbers, expected multiples of {narrow}")
        wide = np.zeros((length // narrow, len(COUNTS)), dtype=np.int64)
        wide[:, :narrow] = values.reshape(-1, narrow)
        columns[at] = _column(wide)
    return msgspec.structs.replace(partial, version=VERSION, columns=columns)


def _unreadable(raw: bytes, error: Exception) -> PartialError:
    return PartialError(f"partial of {len(raw)} bytes cannot be read: {error}")


def pack(cells: Cells) -> list[Column]:
    return [_column(getattr(cells, name)) for name in _COLUMNS]


def unpack(partial: Partial) -> Cells:
    """The cells of a partial; raises ValueError where lengths or references do not fit together."""
    unpacking = _Unpacking()
    unpacking.add(partial)
    return unpacking.batch().cells


class _Table(Generic[K]):
    """One table of the entries of many, each entry once."""

    def __init__(self) -> None:
        self._numbers: defaultdict[K, int] = defaultdict(count().__next__)
        self._of: list[int] = []
        self._sizes: list[int] = []

    def add(self, entries: Sequence[K]) -> None:
        self._of += map(self._numbers.__getitem__, entries)
        self._sizes.append(len(entries))

    @property
    def entries(self) -> tuple[K, ...]:
        return tuple(self._numbers)

    def renumbered(self, index: Int, lengths: Sequence[int]) -> Int:
        """Indices into the tables that were added, `lengths[i]` of them into table i, as indices into `entries`."""
        _within(index, _each(self._sizes, lengths))
        renumbered: Int = np.array(self._of, dtype=np.int64)[index + _each(_before(self._sizes), lengths)]
        return renumbered


class _Unpacking:
    """Makes one block of many partials, a column of all at once: numpy's price is the call, not the number.

    Their tables are numbered as they come, so that no more than one partial's names are in memory.
    """

    def __init__(self) -> None:
        self._words: list[PartialHead] = []
        self._filled: list[int] = []
        self._columns: list[list[Column]] = []
        self._scopes = _Table[tuple[str, str, str, str]]()
        self._instances = _Table[str]()
        self._measures = _Table[str]()

    def add(self, partial: Partial) -> None:
        """Raises ValueError, and takes in nothing, where the number of columns is wrong."""
        if partial.columns:
            if len(partial.columns) != len(_COLUMNS):
                raise ValueError(f"{len(partial.columns)} columns, expected {len(_COLUMNS)}")
            self._filled.append(len(self._words))
            self._columns.append(partial.columns)
            self._scopes.add(partial.scopes)
            self._instances.add(partial.instances)
            self._measures.add(partial.measures)
        self._words.append(PartialHead.of(partial))

    def batch(self) -> PartialBatch:
        """All that was added. Raises ValueError where lengths or references do not fit together."""
        if not self._filled:
            return PartialBatch(self._words, empty(), np.zeros(0, dtype=np.int64))
        arrays, lengths = {}, {}
        for name, columns in zip(_COLUMNS, zip(*self._columns, strict=True), strict=True):
            arrays[name], lengths[name] = _values(columns)
        for name in _WIDE:
            if any(length % len(COUNTS) for length in lengths[name]):
                raise ValueError(f"{name} has {lengths[name]} numbers, expected multiples of {len(COUNTS)}")
            arrays[name] = arrays[name].reshape(-1, len(COUNTS))
            lengths[name] = [length // len(COUNTS) for length in lengths[name]]
        _same(lengths, "second", "scope", "offset", "counts")
        _same(lengths, "hist_cell", "hist_bin", "hist_count")
        _same(lengths, "instance_cell", "instance_id", "instance_counts")
        _same(lengths, "measure_cell", "measure_id", "measure_count", "measure_sum")
        rows = lengths["second"]
        before = _before(rows)
        for name in ("hist_cell", "instance_cell", "measure_cell"):
            _within(arrays[name], _each(rows, lengths[name]))
            arrays[name] += _each(before, lengths[name])
        for name, table in (("scope", self._scopes), ("instance_id", self._instances), ("measure_id", self._measures)):
            arrays[name] = table.renumbered(arrays[name], lengths[name])
        cells = Cells(
            scopes=tuple(map(Scope._make, self._scopes.entries)),
            instances=self._instances.entries,
            measures=self._measures.entries,
            **arrays,
        )
        return PartialBatch(self._words, cells, np.repeat(np.array(self._filled), rows))


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


def _values(columns: Sequence[Column]) -> tuple[Int, list[int]]:
    """The numbers of the same column of several blocks, and how many each has."""
    lengths = []
    for column in columns:
        if not 0 <= column.width < len(_WIDTHS):
            raise ValueError(f"a column of width {column.width}, expected 0 to {len(_WIDTHS) - 1}")
        length, rest = divmod(len(column.data), _SIZES[column.width])
        if rest:
            raise ValueError(f"a column of {len(column.data)} bytes, expected a multiple of {_SIZES[column.width]}")
        lengths.append(length)
    parts = [
        np.frombuffer(b"".join([column.data for column in same]), dtype=_WIDTHS[width]).astype(np.int64)
        for width, same in groupby(columns, lambda column: column.width)
    ]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    values += _each([column.least for column in columns], lengths)
    return values, lengths


def _each(values: Sequence[int], lengths: Sequence[int]) -> Int | np.int64:
    """A value for each row of several blocks; of one block, as live ones are, the value itself."""
    return np.int64(values[0]) if len(values) == 1 else np.array(values, dtype=np.int64).repeat(lengths)


def _before(lengths: Sequence[int]) -> list[int]:
    """How many rows stand before each block."""
    return [0, *accumulate(lengths[:-1])]


def _same(lengths: Mapping[str, list[int]], first: str, *others: str) -> None:
    if any(lengths[name] != lengths[first] for name in others):
        raise ValueError(f"columns have {[(name, lengths[name]) for name in (first, *others)]} rows, expected as many")


def _within(indices: Int, sizes: Int | np.int64) -> None:
    if indices.size and (indices.min() < 0 or (indices >= sizes).any()):
        raise ValueError(f"an index of {indices.max()} points outside a table of {np.max(sizes)}")
