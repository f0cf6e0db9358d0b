"""One second of all scopes: the cells of all sources, summed, sorted by row and packed.

A second is kept as long as a window holds it, so its size decides what a window costs. Each column has the smallest
type that holds it: 20 latency bins and 3 instances take about 100 bytes a scope, a tenth of int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int, Ints
from detectors.cells import COUNTS, LATENCY_US, Cells

MOST_COUNTED = 1 << 42
MOST_SUMMED = 1 << 51
"""The limits of a scope's counts in a second, and of its sums of latencies and measures: an hour of such sums fits in
64 bits, and a hundred hours of counts. Cells are limited to 2**53, of which 1,024 do not fit."""

_SMALL = tuple((np.dtype(t), int(np.iinfo(t).max)) for t in (np.uint8, np.uint16, np.uint32))


@dataclass(frozen=True, slots=True)
class Second:
    """Statistics of `[second, second + 1)`; every row occurs once, ascending.

    Shapes: `rows`, `lengths` and each of `columns` (n,); `bins` and `bin_counts` (h,), of which the first `lengths[0]`
    belong to row 0 and so on; `instance_rows`, `instance_ids` and each of `instance_columns` (i,).
    """

    second: int
    rows: Ints
    columns: tuple[Ints, ...]
    lengths: Ints
    bins: Ints
    bin_counts: Ints
    instance_rows: Ints
    instance_ids: Ints
    instance_columns: tuple[Ints, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        plain = (self.rows, self.lengths, self.bins, self.bin_counts, self.instance_rows, self.instance_ids)
        arrays = {id(array): array for array in (*plain, *self.columns, *self.instance_columns)}
        return sum(array.nbytes for array in arrays.values())

    def renumbered(self, row_of: Int, timed: int) -> Second:
        """Keep the rows r with row_of[r] >= 0 under that number, and histograms of those numbered below `timed`."""
        rows = row_of[self.rows]
        kept = rows >= 0
        with_bins = kept & (rows < timed)
        # Half of the windows have no histograms, so there is nothing to repeat.
        entries = np.repeat(with_bins, self.lengths) if with_bins.any() else slice(0)
        instance_rows = row_of[self.instance_rows]
        kept_instances = instance_rows >= 0
        return Second(
            second=self.second,
            rows=packed(rows[kept]),
            columns=_rows_of(self.columns, kept),
            lengths=(self.lengths * with_bins)[kept],
            bins=self.bins[entries],
            bin_counts=self.bin_counts[entries],
            instance_rows=packed(instance_rows[kept_instances]),
            instance_ids=self.instance_ids[kept_instances],
            instance_columns=_rows_of(self.instance_columns, kept_instances),
        )


def collect(
    blocks: Sequence[Cells],
    slots: Sequence[Int],
    instance_ids: Sequence[Int],
    measures: dict[str, int],
) -> list[Second]:
    """Sum blocks second by second; return the seconds that they hold, ascending.

    `slots` gives the slot of every row of a block, `instance_ids` the number of every entry of its instance section;
    rows and entries with -1 are left out. `measures` numbers the measures to keep; count and sum of measure k become
    columns len(COUNTS) + 2k and + 2k + 1.
    """
    width = len(COUNTS) + 2 * len(measures)
    seconds, at = _numbered(_joined([cells.second for cells in blocks]))
    before = np.cumsum([0] + [len(cells) for cells in blocks])[:-1].tolist()
    slot = _joined(slots)
    (row_at, rows), values = _sum_by(
        (np.where(slot < 0, -1, at), slot), _joined([_columns(cells, width, measures) for cells in blocks])
    )
    values = _bounded(values)
    # A cell has each bin and instance at most once, so only a scope in several cells can repeat one.
    once = len(rows) == np.count_nonzero(slot >= 0)

    cell = np.concatenate([cells.hist_cell + start for cells, start in zip(blocks, before, strict=True)])
    (bin_at, bin_rows, bins), bin_counts = _sum_by(
        (np.where(slot[cell] < 0, -1, at[cell]), slot[cell], _joined([cells.hist_bin for cells in blocks])),
        _joined([cells.hist_count for cells in blocks]),
        distinct=once,
    )

    ids = _joined(instance_ids)
    cell = np.concatenate([cells.instance_cell + start for cells, start in zip(blocks, before, strict=True)])
    (instance_at, instance_rows, instances), instance_counts = _sum_by(
        (np.where((ids < 0) | (slot[cell] < 0), -1, at[cell]), slot[cell], ids),
        _joined([cells.instance_counts for cells in blocks]),
        distinct=once,
    )

    instance_counts = _bounded(instance_counts)
    number = np.arange(len(seconds) + 1)
    row_ends, bin_ends, instance_ends = (np.searchsorted(of, number).tolist() for of in (row_at, bin_at, instance_at))
    found = []
    for k, second in enumerate(seconds.tolist()):
        r, h, i = (slice(ends[k], ends[k + 1]) for ends in (row_ends, bin_ends, instance_ends))
        own = rows[r]
        lengths = np.bincount(bin_rows[h], minlength=int(own[-1]) + 1 if len(own) else 0)[own]
        found.append(
            Second(
                second=second,
                rows=own,
                columns=_packed_columns(values[r]),
                lengths=packed(lengths),
                bins=bins[h],
                bin_counts=packed(bin_counts[h]),
                instance_rows=instance_rows[i],
                instance_ids=instances[i],
                instance_columns=_packed_columns(instance_counts[i]),
            )
        )
    return found


def _bounded(values: Ints) -> Ints:
    """Return columns of counts and sums (n, k), clipped to what a window can add up."""
    # Values of a smaller type cannot reach the limits, and the type costs nothing to test.
    if values.dtype.itemsize < 8 or not len(values) or (values.max() <= MOST_COUNTED and values.min() >= -MOST_COUNTED):
        return values
    most = np.full(values.shape[1], MOST_SUMMED, dtype=np.int64)
    most[: len(COUNTS)] = MOST_COUNTED
    most[LATENCY_US] = MOST_SUMMED
    return np.clip(values.astype(np.int64), -most, most)


def packed(values: Ints) -> Ints:
    """Copy values into the smallest unsigned type that holds them all, int64 if there is none."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    return values.astype(_type_of(low, high))


def _type_of(low: int, high: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds low..high, int64 if there is none."""
    if low >= 0:
        for dtype, largest in _SMALL:
            if high <= largest:
                return dtype
    return np.dtype(np.int64)


def _packed_columns(values: Ints) -> tuple[Ints, ...]:
    """Return each column of `values` (n, k) packed. Columns of zeros, which most are, share one array."""
    nothing: Ints = np.zeros(len(values), dtype=np.uint8)
    if not len(values):
        return tuple(nothing for _ in range(values.shape[1]))
    columns = np.ascontiguousarray(values.T)
    low, high = columns.min(axis=1).tolist(), columns.max(axis=1).tolist()
    ends = zip(low, high, strict=True)
    return tuple(
        column.astype(_type_of(*most)) if any(most) else nothing for column, most in zip(columns, ends, strict=True)
    )


def _rows_of(columns: tuple[Ints, ...], kept: NDArray[np.bool_]) -> tuple[Ints, ...]:
    """Return the rows (n,) of each column that are kept; columns that share an array still share one."""
    if kept.all():
        return columns
    done: dict[int, Ints] = {}
    for column in columns:
        if id(column) not in done:
            done[id(column)] = column[kept]
    return tuple(done[id(column)] for column in columns)


def _numbered(seconds: Int) -> tuple[Int, Int]:
    """Return the distinct seconds of an array (n,), ascending, and the index of each entry among them (n,)."""
    # A single second, the usual case, needs no sort.
    if len(seconds) and seconds.min() == seconds.max():
        return seconds[:1], np.zeros(len(seconds), dtype=np.int64)
    values, at = np.unique(seconds, return_inverse=True)
    return values, at


def _joined(parts: Sequence[Int]) -> Int:
    """Concatenate, without a copy if there is one part; the result must not be written to."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _columns(cells: Cells, width: int, measures: dict[str, int]) -> Int:
    """Return the counts of cells, followed by count and sum of each kept measure: (n, width)."""
    if width == cells.counts.shape[1]:
        return cells.counts
    values = np.zeros((len(cells), width), dtype=np.int64)
    values[:, : len(COUNTS)] = cells.counts
    if measures and len(cells.measure_cell):
        number = np.array([measures.get(name, -1) for name in cells.measures], dtype=np.int64)[cells.measure_id]
        kept = number >= 0
        column = len(COUNTS) + 2 * number[kept]
        np.add.at(values, (cells.measure_cell[kept], column), cells.measure_count[kept])
        np.add.at(values, (cells.measure_cell[kept], column + 1), cells.measure_sum[kept])
    return values


def _sum_by(keys: tuple[Int, ...], values: Ints, *, distinct: bool = False) -> tuple[tuple[Ints, ...], Ints]:
    """Sum the rows of `values` with equal keys and sort by them; entries whose first key is negative are dropped.

    If all keys are known to be `distinct`, nothing is summed and only the first two keys are sorted.
    """
    kept = keys[0] >= 0
    if not kept.all():
        keys, values = tuple(key[kept] for key in keys), values[kept]
    small, values = tuple(packed(key) for key in keys), packed(values)
    # numpy sorts 16-bit types by radix, 10 times faster than wide ones: one pass per key, the last key first. Only keys
    # are moved between the passes; values, which do not fit the cache from 8 sources on, are moved once and packed.
    order: Int | None = None
    for by in range(1 if distinct else len(small) - 1, -1, -1):
        key = small[by] if order is None else small[by][order]
        if np.any(key[1:] < key[:-1]):
            again = np.argsort(key, kind="stable")
            order = again if order is None else order[again]
    if order is not None:
        small, values = tuple(key[order] for key in small), values[order]
    if distinct or not len(values):
        return small, values
    first = np.ones(len(values), dtype=bool)
    first[1:] = np.any([key[1:] != key[:-1] for key in small], axis=0)
    if first.all():
        return small, values
    return tuple(key[first] for key in small), np.add.reduceat(values, np.flatnonzero(first), axis=0, dtype=np.int64)
