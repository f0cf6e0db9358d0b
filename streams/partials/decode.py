"""Decodes partials and their cells, many records at once.

A numpy call costs more than its numbers, so a column of all records is unpacked in one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate, count
from typing import Any

import numpy as np

from detectors.arrays import Int
from detectors.cell_operations import empty
from detectors.cells import COLUMNS, ROWS, SPARSE, TABLES, Cells, Scope
from streams.errors import PartialError
from streams.partials.batch import PartialBatch, PartialHead
from streams.partials.packing import Column, repeated, unpacked
from streams.partials.record import Partial, decode_record
from streams.unreadable import UNREADABLE

_DAMAGE = (*UNREADABLE, TypeError, OverflowError)
_SECTIONS: Mapping[str, Sequence[str]] = {
    section: [column.name for column in COLUMNS if column.section == section] for section in (ROWS, *SPARSE)
}


def decode(raw: bytes) -> tuple[Partial, Cells]:
    """Read a partial and its cells; `PartialError` for anything that is not one."""
    try:
        partial = decode_record(raw)
        return partial, unpack(partial)
    except _DAMAGE as error:
        raise _unreadable(raw, error) from error


def decode_all(raws: Sequence[bytes]) -> tuple[PartialBatch, list[PartialError]]:
    """Read partials; returns a batch of those that can be read, and an error for each of the others."""
    unpacking, errors = _Unpacking(), []
    for raw in raws:
        try:
            unpacking.add(decode_record(raw))
        except _DAMAGE as error:
            errors.append(_unreadable(raw, error))
    try:
        return unpacking.batch(), errors
    except _DAMAGE as error:
        if len(raws) == 1:
            return _Unpacking().batch(), [_unreadable(raws[0], error)]
    # At least one of many is damaged: decode each alone to find out which.
    alone = [(raw, decode_all([raw])[1]) for raw in raws]
    whole, _ = decode_all([raw for raw, found in alone if not found])
    return whole, [error for _, found in alone for error in found]


def unpack(partial: Partial) -> Cells:
    """The cells of a partial; raises ValueError if lengths or references do not fit together."""
    unpacking = _Unpacking()
    unpacking.add(partial)
    return unpacking.batch().cells


def _unreadable(raw: bytes, error: Exception) -> PartialError:
    return PartialError(f"partial of {len(raw)} bytes cannot be read: {error}")


class _JoinedTable:
    """The tables of several records as one, each entry once."""

    def __init__(self) -> None:
        self._numbers: defaultdict[Hashable, int] = defaultdict(count().__next__)
        self._of: list[int] = []
        self._sizes: list[int] = []

    def add(self, entries: Sequence[Hashable]) -> None:
        self._of += map(self._numbers.__getitem__, entries)
        self._sizes.append(len(entries))

    @property
    def entries(self) -> Iterable[Any]:
        return self._numbers

    def renumbered(self, index: Int, lengths: Sequence[int]) -> Int:
        """Indices into the tables that were added, `lengths[i]` of them into table i, as indices into `entries`."""
        _within(index, repeated(self._sizes, lengths))
        renumbered: Int = np.array(self._of, dtype=np.int64)[index + repeated(_before(self._sizes), lengths)]
        return renumbered


class _Unpacking:
    """Makes one block of many partials.

    Table entries are numbered as each partial comes, so that no more than one partial's names are in memory.
    """

    def __init__(self) -> None:
        self._heads: list[PartialHead] = []
        self._filled: list[int] = []
        self._columns: list[list[Column]] = []
        self._tables = {name: _JoinedTable() for name in TABLES}

    def add(self, partial: Partial) -> None:
        """Raises ValueError, and adds nothing, if the number of columns is wrong."""
        if partial.columns:
            if len(partial.columns) != len(COLUMNS):
                raise ValueError(f"{len(partial.columns)} columns, expected {len(COLUMNS)}")
            self._filled.append(len(self._heads))
            self._columns.append(partial.columns)
            for name, table in self._tables.items():
                table.add(getattr(partial, name))
        self._heads.append(PartialHead.of(partial))

    def batch(self) -> PartialBatch:
        """All partials that were added. Raises ValueError if lengths or references do not fit together."""
        if not self._filled:
            return PartialBatch(self._heads, empty(), np.zeros(0, dtype=np.int64))
        arrays, lengths = {}, {}
        for column, blocks in zip(COLUMNS, zip(*self._columns, strict=True), strict=True):
            name, width = column.name, column.width
            arrays[name], lengths[name] = unpacked(blocks)
            if width is not None:
                if any(length % width for length in lengths[name]):
                    raise ValueError(f"{name} has {lengths[name]} numbers, expected multiples of {width}")
                arrays[name] = arrays[name].reshape(-1, width)
                lengths[name] = [length // width for length in lengths[name]]
        for names in _SECTIONS.values():
            _same({name: lengths[name] for name in names})
        rows = lengths["second"]
        before = _before(rows)
        for name in SPARSE.values():
            _within(arrays[name], repeated(rows, lengths[name]))
            arrays[name] += repeated(before, lengths[name])
        for column in COLUMNS:
            if column.table is not None:
                name = column.name
                arrays[name] = self._tables[column.table].renumbered(arrays[name], lengths[name])
        tables: dict[str, Any] = {name: tuple(table.entries) for name, table in self._tables.items()}
        tables["scopes"] = tuple(map(Scope._make, tables["scopes"]))
        cells = Cells(**(tables | arrays))
        return PartialBatch(self._heads, cells, np.repeat(np.array(self._filled), rows))


def _before(lengths: Sequence[int]) -> list[int]:
    """How many rows stand before each block."""
    return [0, *accumulate(lengths[:-1])]


def _same(lengths: Mapping[str, list[int]]) -> None:
    first, *others = lengths.values()
    if any(other != first for other in others):
        raise ValueError(f"columns have {[*lengths.items()]} rows, expected as many")


def _within(indices: Int, sizes: Int | np.int64) -> None:
    if indices.size and (indices.min() < 0 or (indices >= sizes).any()):
        raise ValueError(f"an index of {indices.max()} points outside a table of {np.max(sizes)}")
