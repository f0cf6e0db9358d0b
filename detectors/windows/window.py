"""One sliding window: exact sums over [t - w, t) of event time, for all its scopes at once.

A window is a matrix of running sums. Each second is added once and subtracted once, as integers, so sums do not drift.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int, Ints
from detectors.cells import LATENCY_COUNT
from detectors.histogram import BINS, OCTAVES, SCALE, count_above, quantile_by_octave, value_at_rank
from detectors.windows.by_instance import counts_of, instances_of
from detectors.windows.second import Second


class Window:
    """The sums over the last `seconds` seconds, by row; `WindowStore.row` returns the row of a scope.

    Seconds are queued when they come and summed when the window is read: a window that is not read for a while costs
    nothing, and seconds that come and go in between are never summed.

    `filled` tells whether the store has been running for the whole window.
    """

    def __init__(self, seconds: int, columns: int, rows: int, timed: int, row_of: Int | None = None) -> None:
        """Track `rows` rows, the first `timed` with histograms; `row_of` maps slots to rows, None for slots as rows."""
        self.seconds = seconds
        self._sums = np.zeros((columns, rows), dtype=np.int64)
        self._seen = np.zeros(rows, dtype=bool)
        self.filled = False
        self._row_of = row_of
        self._timed = timed
        # Pages of zeros cost nothing until a row is written. Sums wrap at 2**32; `quantile` returns nan for those.
        self._bins = np.zeros((timed, BINS), dtype=np.uint32)
        self._octaves = np.zeros((timed, OCTAVES), dtype=np.uint32)
        self._log: deque[Second] = deque()
        self._queued: deque[Second] = deque()
        self._begin: int
        """The first second that it holds; set before it holds one."""

    @property
    def sums(self) -> Int:
        """Sums of all rows, int64 (columns, rows): `detectors.cells.COUNTS`, then count and sum of each measure."""
        self.settle()
        return self._sums

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Whether each row ever had a second, (rows,)."""
        self.settle()
        return self._seen

    def row(self, slot: int) -> int:
        """Return the row of a slot of the store, -1 if it is not tracked."""
        return slot if self._row_of is None or slot < 0 else int(self._row_of[slot])

    def quantile(self, rows: Int, q: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return latency quantiles in milliseconds, shape (r,); `q` is one number for all rows or (r,).

        The result is nan if nothing was timed, if no histogram is kept for the row, and above 2**32 - 1 values.
        """
        result, known = np.full(len(rows), np.nan), self._known(rows)
        each = q[known] if isinstance(q, np.ndarray) else q
        result[known] = quantile_by_octave(self._bins, self._octaves, rows[known], each)
        return result

    def at_rank(self, rows: Int, ranks: Int) -> NDArray[np.float64]:
        """Return the latency in milliseconds of rank `ranks` (r,), from 1, in each row; nan as in `quantile`."""
        result, known = np.full(len(rows), np.nan), self._known(rows)
        result[known] = value_at_rank(self._bins, self._octaves, rows[known], np.maximum(ranks[known], 1))
        return result

    def _known(self, rows: Int) -> Int:
        """Return which of some rows have a histogram with at least one value and sums that did not wrap."""
        totals = self.sums[LATENCY_COUNT][rows]
        return np.flatnonzero((rows >= 0) & (rows < self._timed) & (totals > 0) & (totals < 1 << 32))

    def histogram(self, row: int) -> Int:
        """Return the latency histogram (BINS,) of a row; all zero if none is kept."""
        self.settle()
        if row >= self._timed:
            return np.zeros(BINS, dtype=np.int64)
        own: Int = self._bins[row].astype(np.int64)
        return own

    def above(self, rows: Int, first_bin: Int) -> Int:
        """Return how many latencies of some rows (r,) are in bins from `first_bin` (r,) on; 0 without histogram."""
        self.settle()
        result = np.zeros(len(rows), dtype=np.int64)
        known = np.flatnonzero((rows >= 0) & (rows < self._timed) & (first_bin < BINS))
        result[known] = count_above(self._bins, self._octaves, rows[known], first_bin[known])
        return result

    def counts(self, slot: int, since: int) -> Int:
        """See `detectors.windows.by_instance.counts_of`. Reads the log: for rare use."""
        self.settle()
        return counts_of(self._log, slot, since)

    def instances(self, slot: int, since: int) -> dict[int, Int]:
        """See `detectors.windows.by_instance.instances_of`. Reads the whole log: for rare use."""
        self.settle()
        return instances_of(self._log, slot, since)

    @property
    def nbytes(self) -> int:
        """Bytes of its own arrays, including pages that were never written."""
        return self._sums.nbytes + self._seen.nbytes + self._bins.nbytes + self._octaves.nbytes

    @property
    def seconds_kept(self) -> Sequence[Second]:
        """The seconds that it holds, whose rows are slots of the store."""
        return (*self._log, *self._queued)

    def add(self, second: Second) -> None:
        """Queue a second, whose rows are slots of the store."""
        self._queued.append(second)

    def expire(self, before: int) -> None:
        """Mark the seconds earlier than `before` for removal."""
        self._begin = before
        while self._queued and self._queued[0].second < before:
            self._mark_seen(self._own(self._queued.popleft()))

    def settle(self) -> None:
        """Subtract the removed seconds and add the queued ones."""
        while self._log and self._log[0].second < self._begin:
            self._apply(self._own(self._log.popleft()), np.subtract)
        while self._queued:
            second = self._queued.popleft()
            own = self._own(second)
            if len(own.rows):
                self._apply(own, np.add)
                self._mark_seen(own)
                self._log.append(second)

    def _own(self, second: Second) -> Second:
        return second if self._row_of is None else second.renumbered(self._row_of, self._timed)

    def _mark_seen(self, own: Second) -> None:
        self._seen[own.rows] = True

    def _apply(self, second: Second, change: np.ufunc) -> None:
        """Add a second to the sums and histograms, or subtract it: `change` is the numpy operation."""
        rows = second.rows.astype(np.int64)
        # Most columns of faults are zero, and those of a second share one array; testing that takes a fifth of the time
        # of adding them.
        zeros: Ints | None = None
        for total, column in zip(self._sums, second.columns, strict=True):
            if column is zeros:
                continue
            if column.any():
                total[rows] = change(total[rows], column)
            else:
                zeros = column
        keys = np.repeat(rows * BINS, second.lengths)
        keys += second.bins
        counts = second.bin_counts.astype(np.uint32)
        # `at`, because an octave occurs several times; with equal types it takes 5 ns an entry.
        change.at(self._bins.ravel(), keys, counts)
        keys >>= SCALE
        change.at(self._octaves.ravel(), keys, counts)
