"""Operations on `Cells` blocks: select, join and split, each written over `COLUMNS`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final

import numpy as np

from detectors.arrays import Int
from detectors.cells import COLUMNS, ROWS, SPARSE, TABLES, Cells

_CUT: Final = ("scopes", "instances")
"""Tables from which `select` drops unused entries. A block names few measures, so their table is left whole."""


def empty() -> Cells:
    """Return cells without a row."""
    none = np.zeros(0, dtype=np.int64)
    arrays = {c.name: none if c.width is None else none.reshape(0, c.width) for c in COLUMNS}
    return Cells(scopes=(), instances=(), measures=(), **arrays)


def nbytes(cells: Cells) -> int:
    """Return the bytes of a block's arrays. Its tables are not counted, because blocks share the names in them."""
    return sum(getattr(cells, column.name).nbytes for column in COLUMNS)


def select(cells: Cells, rows: Int) -> Cells:
    """Return the given rows with the entries that refer to them; the tables of scopes and instances keep only used
    entries."""
    new_row = np.full(len(cells), -1, dtype=np.int64)
    new_row[rows] = np.arange(len(rows))
    kept = {section: np.flatnonzero(new_row[getattr(cells, name)] >= 0) for section, name in SPARSE.items()}
    kept[ROWS] = rows
    changed: dict[str, Any] = {}
    for column in COLUMNS:
        values = getattr(cells, column.name)[kept[column.section]]
        if column.names_row:
            values = new_row[values]
        elif column.table in _CUT:
            table = getattr(cells, column.table)
            used, values = np.unique(values, return_inverse=True)
            values = values.astype(np.int64)
            changed[column.table] = tuple(table[i] for i in used.tolist())
        changed[column.name] = values
    return replace(cells, **changed)


def join(blocks: Sequence[Cells]) -> Cells:
    """Return one block with the rows of all; each scope, instance and measure has one index in the joined tables."""
    blocks = [block for block in blocks if len(block)] or blocks[:1]
    if len(blocks) == 1:
        return blocks[0]
    tables: dict[str, defaultdict[Any, int]] = {name: defaultdict(count().__next__) for name in TABLES}
    parts: dict[str, list[Int]] = {column.name: [] for column in COLUMNS}
    rows = 0
    for block in blocks:
        number = {
            name: np.fromiter(map(table.__getitem__, getattr(block, name)), dtype=np.int64)
            for name, table in tables.items()
        }
        for column in COLUMNS:
            values = getattr(block, column.name)
            if column.table is not None:
                values = number[column.table][values]
            elif column.names_row:
                values = values + rows
            parts[column.name].append(values)
        rows += len(block)
    joined: dict[str, Any] = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    joined |= {name: tuple(table) for name, table in tables.items()}
    return Cells(**joined)


def by_second(cells: Cells) -> Iterator[tuple[int, Cells]]:
    """Yield each second of a block with its cells, ascending; all parts share the tables of the block."""
    if not len(cells):
        return
    order = np.argsort(cells.second, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    seconds, starts = np.unique(cells.second[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    row = {section: rank[getattr(cells, name)] for section, name in SPARSE.items()}
    orders = {section: np.argsort(rows, kind="stable") for section, rows in row.items()}
    orders[ROWS] = order
    arrays = {
        column.name: (row[column.section] if column.names_row else getattr(cells, column.name))[orders[column.section]]
        for column in COLUMNS
    }
    tables: dict[str, Any] = {name: getattr(cells, name) for name in TABLES}
    for second, start, end in zip(seconds.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield second, Cells(**(tables | _rows(arrays, start, end)))


def _rows(arrays: Mapping[str, Int], start: int, end: int) -> dict[str, Int]:
    """Return rows start..end of a block's arrays, whose sparse sections are sorted by row. Only row numbers are
    copied."""
    kept = {section: slice(*np.searchsorted(arrays[name], (start, end))) for section, name in SPARSE.items()}
    kept[ROWS] = slice(start, end)
    found = {column.name: arrays[column.name][kept[column.section]] for column in COLUMNS}
    for name in SPARSE.values():
        found[name] = found[name] - start
    return found
