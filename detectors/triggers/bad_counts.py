"""Bad requests of the newest second, for triggers that limit the share of bad requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int
from detectors.cells import ERRORS, LATE, LATENCY_COUNT, NO_OUTCOME, REJECTED, REQUESTS, Scope
from detectors.conditions.metric_table import Metric, Ratio
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import BINS, first_bin_above
from detectors.missing.missing_samples import Missing, asks_outcome, missing_of
from detectors.windows.by_instance import by_instance, samples_of, sum_by_row
from detectors.windows.overdue import limit_of, measure_of
from detectors.windows.ratios import RATIO_PARTS
from detectors.windows.store import WindowStore
from detectors.windows.unreadable import unreadable_of

_COLUMNS: dict[Metric, Ratio] = {**RATIO_PARTS, "absence": Ratio(ERRORS, REQUESTS)}
"""An absence counts all requests, however they ended."""


class BadCounts:
    """The counts of n rows, each the metric of a trigger in a scope.

    The metric says which requests are bad; for a latency quantile, those above `set_limit`: the quantile is above the
    limit exactly if more than (1 - q) n latencies are. Reads the windows of 1 s. Raises KeyError if the store has none.
    """

    def __init__(self, store: WindowStore, wanted: Sequence[tuple[TriggerSpec, Scope]]) -> None:
        self._window = store.window(1)
        self.rows = np.array([store.row(scope, 1) for _, scope in wanted], dtype=np.int64)
        self._slots = np.array([store.slot(scope) for _, scope in wanted], dtype=np.int64)
        self._unread_in = store.unread.window(1)
        self._unread = np.array(
            [store.unread.place(scope, unreadable_of(spec.condition)) for spec, scope in wanted], dtype=np.int64
        )
        metrics = [spec.condition.metric for spec, _ in wanted]
        self._outcome = np.array([asks_outcome(metric) for metric in metrics], dtype=bool)
        self._groups: list[tuple[Metric, Int]] = [
            (metric, np.array([i for i, own in enumerate(metrics) if own == metric], dtype=np.int64))
            for metric in dict.fromkeys(metrics)
        ]
        self._first = np.full(len(wanted), BINS, dtype=np.int64)
        limits = [limit_of(spec) for spec, _ in wanted]
        self._overdue: list[tuple[int, Int]] = [
            (
                store.measure_columns(measure_of(limit))[1],
                np.array([i for i, own in enumerate(limits) if own == limit], dtype=np.int64),
            )
            for limit in dict.fromkeys(limits)
            if limit is not None
        ]

    def set_limit(self, at: Int, limit_ms: NDArray[np.float64]) -> None:
        """Count latencies above `limit_ms` (r,) as bad in the rows `at` (r,) from now on."""
        self._first[at] = first_bin_above(limit_ms)

    @property
    def first_bad_bin(self) -> Int:
        """The first bin of the histogram that is bad in each row (n,), as set by `set_limit`."""
        return self._first

    @first_bad_bin.setter
    def first_bad_bin(self, bins: Int) -> None:
        self._first = bins

    def read(self) -> tuple[Int, Int]:
        """Return the bad requests (n,) of the newest second, and all (n,) that are known to be bad or not."""
        bad, whole = np.zeros(len(self.rows), dtype=np.int64), np.zeros(len(self.rows), dtype=np.int64)
        sums = self._window.sums
        for metric, at in self._groups:
            rows = self.rows[at]
            if metric == "latency_quantile":
                bad[at], whole[at] = self._window.above(rows, self._first[at]), sums[LATENCY_COUNT][rows]
            else:
                bad[at], whole[at] = _COLUMNS[metric].bad_in(sums, rows)
        for column, at in self._overdue:
            # A request that hangs is bad when it crosses the limit, and not again when it ends.
            overdue = sums[column][self.rows[at]]
            bad[at] = np.maximum(bad[at] + overdue, 0)
            whole[at] = np.maximum(whole[at] + overdue, bad[at])
        bad[self.rows < 0] = whole[self.rows < 0] = 0
        return bad, whole

    def requests(self) -> Int:
        """Return all requests (n,) of the newest second, however they ended."""
        requests: Int = self._window.sums[REQUESTS][self.rows]
        requests[self.rows < 0] = 0
        return requests

    def missing(self) -> Missing | None:
        """Return what is missing in the newest second (each (n,)); None if nothing is."""
        sums = self._window.sums
        if not self._unread_in.any() and not any(sums[column].any() for column in (LATE, REJECTED, NO_OUTCOME)):
            return None
        found = missing_of(lambda column: np.where(self.rows < 0, 0, sums[column][self.rows]), outcome=True)
        found = found._replace(no_outcome=np.where(self._outcome, found.no_outcome, 0))
        if self._unread_in.any():
            found = found._replace(unread=self._unread_in.read(self._unread), read=self.read()[1])
        return found

    def judged(self, at: Int) -> tuple[Int, Int, Int]:
        """Return the least and greatest number of bad requests, and all requests, in the rows `at` (r,) of the newest
        second.

        Only instances that lack no more than the tolerated share count; the result is 0 if they have less than half of
        all samples. For a latency only bounds are known, because histograms are not kept by instance.
        """
        bad, whole = self.read()
        slots = self._slots[at]
        found = by_instance(self._window.seconds_kept, np.unique(slots[slots >= 0]))
        place = np.searchsorted(np.unique(slots[slots >= 0]), slots)
        least, most, all_ = (np.zeros(len(at), dtype=np.int64) for _ in range(3))
        for outcome in (False, True):
            left_out = missing_of(lambda column: found.counts[:, column], outcome=outcome).much
            rest = sum_by_row(found.counts * ~left_out[:, np.newaxis], found.starts)
            total = sum_by_row(found.counts, found.starts)
            enough = 2 * samples_of(rest) >= samples_of(total)
            for metric, rows in self._groups:
                here = np.flatnonzero(np.isin(at, rows) & (self._outcome[at] == outcome) & (slots >= 0))
                here = here[enough[place[here]]]
                counts = rest[place[here]]
                if metric != "latency_quantile":
                    least[here], all_[here] = _COLUMNS[metric].bad(counts.T.__getitem__)
                    most[here] = least[here]
                    continue
                timed = counts[:, LATENCY_COUNT]
                out = np.maximum(whole[at[here]] - timed, 0)
                least[here], most[here] = np.maximum(bad[at[here]] - out, 0), np.minimum(bad[at[here]], timed)
                all_[here] = timed
        return least, most, all_
