"""The counts of a window by second and by instance, read from its log for the few rows of which somebody asks.

The rows of the seconds are slots of the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from detectors.cells import COUNTS, LATE, REJECTED, REQUESTS
from detectors.seconds import Int, Second

MAX_INSTANCES = 65_536
"""Instances kept by name; who invents a new name each second must not fill the memory."""


class ByInstance(NamedTuple):
    """Who sent what: `counts` (k, len(COUNTS)) of instance number `instance` (k,) in the slot with index `row` (k,).

    Rows ascend, and the instances of a row. `starts` (r + 1,) says where the entries of each row begin.
    """

    row: Int
    instance: Int
    counts: Int
    starts: Int


def by_instance(seconds: Iterable[Second], slots: Int) -> ByInstance:
    """Sum seconds by instance in some slots (r,), each given once.

    A second costs about 15 us, an entry (an instance in a second) 0.1 us. Entries of other slots cost nothing: the rows
    of a second ascend, so each slot is found by bisection.
    """
    by_slot = np.argsort(slots)
    edges = np.add.outer(slots[by_slot], (0, 1)).ravel()
    last = int(edges[-1]) if len(edges) else 0
    whose: list[Int] = []
    ids: list[Int] = []
    columns: list[list[Int]] = [[] for _ in COUNTS]
    for second in seconds:
        rows = second.instance_rows
        # Edges of another type than the rows would be looked for in a copy of all rows.
        found = rows.searchsorted(edges.astype(rows.dtype) if last <= np.iinfo(rows.dtype).max else edges)
        begin, length = found[::2], found[1::2] - found[::2]
        total = int(length.sum())
        if total:
            kept = np.repeat(begin - np.cumsum(length) + length, length) + np.arange(total)
            whose.append(np.repeat(by_slot, length))
            ids.append(second.instance_ids.take(kept))
            for column, parts in zip(second.instance_columns, columns, strict=True):
                parts.append(column.take(kept))
    if not whose:
        nobody = np.zeros(0, dtype=np.int64)
        return ByInstance(
            nobody, nobody, np.zeros((0, len(COUNTS)), dtype=np.int64), np.zeros(len(slots) + 1, np.int64)
        )
    key = np.concatenate(whose) * MAX_INSTANCES + np.concatenate(ids)
    # Each second is sorted already, and a stable sort merges what is.
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.concatenate((np.ones(1, dtype=bool), key[1:] != key[:-1])))
    values = np.stack([np.concatenate(parts, dtype=np.int64) for parts in columns], axis=1)
    row, instance = np.divmod(key[first], MAX_INSTANCES)
    sums = np.add.reduceat(values[order], first, axis=0)
    return ByInstance(row, instance, sums, np.searchsorted(row, np.arange(len(slots) + 1)))


def sum_by_row(counts: Int, starts: Int) -> Int:
    """Sum the counts of entries by their row, as `ByInstance.starts` says: (r, len(COUNTS))."""
    result = np.zeros((len(starts) - 1, counts.shape[1]), dtype=np.int64)
    filled = np.flatnonzero(starts[1:] > starts[:-1])
    if len(filled):
        result[filled] = np.add.reduceat(counts, starts[filled], axis=0)
    return result


def samples_of(counts: Int) -> Int:
    """All samples of some counts (r, len(COUNTS)), those that are missing too."""
    result: Int = counts[:, REQUESTS] + counts[:, LATE] + counts[:, REJECTED]
    return result


def counts_of(seconds: Iterable[Second], slot: int, since: int = 0) -> Int:
    """Return the counts (len(COUNTS),) of a slot in the seconds from `since` on."""
    found = np.zeros(len(COUNTS), dtype=np.int64)
    for second in seconds:
        if second.second >= since:
            at = np.flatnonzero(second.rows == slot)
            found += [int(column[at].sum()) for column in second.columns[: len(COUNTS)]]
    return found


def instances_of(seconds: Iterable[Second], slot: int, since: int = 0) -> dict[int, Int]:
    """Return the counts (len(COUNTS),) of a slot by number of the instance, in the seconds from `since` on."""
    recent = (second for second in seconds if second.second >= since)
    found = by_instance(recent, np.array([slot], dtype=np.int64))
    return dict(zip(found.instance.tolist(), found.counts, strict=True))
