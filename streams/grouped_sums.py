"""Groups and sums integer columns: by indexing if there are few possible keys, else by sorting."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int

LIMIT: Final = 1 << 53
"""Sums are clipped to this: doubles are exact up to it, and a thousand such sums fit in 64 bits."""


def spread(sizes: Int) -> tuple[Int, Int]:
    """Repeat each index i `sizes[i]` times; also return the running count of each repetition, from 0."""
    index = np.repeat(np.arange(len(sizes)), sizes)
    return index, np.arange(len(index)) - (np.cumsum(sizes) - sizes)[index]


def dense(values: Int) -> tuple[Int, Int]:
    """(distinct, index) with `distinct[index]` equal to `values`; `distinct` ascends and may have unused values."""
    least = int(values.min())
    span = int(values.max()) - least + 1
    if span <= 4 * len(values) + 1024:
        return np.arange(least, least + span), values - least
    distinct, index = np.unique(values, return_inverse=True)
    return distinct, index


def compress(key: Int, size: int) -> tuple[Int, Int]:
    """The distinct keys, all in 0..size - 1, ascending, and the index of each key among them."""
    if size > 8 * len(key) + 4096:
        distinct, index = np.unique(key, return_inverse=True)
        return distinct, index
    seen = np.zeros(size, dtype=bool)
    seen[key] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[key]


def tallied(key: Int, count: Int | Float | None, size: int) -> tuple[Int, Int]:
    """The distinct keys, all in 0..size - 1, ascending, and the sum of the counts of each (None counts 1 a key)."""
    if size > 16 * len(key) + 4096:
        return summed(key, np.ones(len(key)) if count is None else count)
    sums = np.bincount(key, count, size)
    distinct = np.flatnonzero(sums)
    return distinct, limited(sums[distinct])


def summed(key: Int, values: Int | Float) -> tuple[Int, Int]:
    """The distinct keys, ascending, and for each the sum of its rows of `values`."""
    if not len(key):
        return key, np.zeros(values.shape, dtype=np.int64)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[starts], limited(np.add.reduceat(values[order].astype(np.float64), starts))


def limited(sums: NDArray[Any]) -> Int:
    # A sum of non-negative doubles is exact up to LIMIT; if the true sum is above LIMIT, so is the computed one.
    result: Int = np.minimum(sums, LIMIT).astype(np.int64)
    return result


def by_cell(cell: Int, values: Int, cells: int) -> Int:
    """Sums of rows by cell; rows are sorted by cell and every cell has a row."""
    if not cells:
        return np.zeros(values.shape, dtype=np.int64)
    return limited(np.add.reduceat(values.astype(np.float64), np.searchsorted(cell, np.arange(cells))))
