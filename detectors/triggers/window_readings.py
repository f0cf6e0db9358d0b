"""The value, the samples and the unknown reason of every trigger, read from the windows of one scope each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.cells import COUNTS, LATE, LATENCY_COUNT, NO_OUTCOME, REJECTED, REQUESTS, Scope
from detectors.conditions.metric_table import LATENCIES, Metric
from detectors.conditions.spec import TriggerSpec
from detectors.missing.bounds import bounds, quantile_bounds
from detectors.missing.judged_instances import JudgedInstances
from detectors.missing.missing_samples import Missing, asks_outcome, missing_of
from detectors.missing.unattributed import UnattributedLoss
from detectors.missing.unknown_reason import UnknownReason
from detectors.missing.unread_variants import UnreadVariants
from detectors.triggers.evaluation import Measured
from detectors.windows.metrics import compute
from detectors.windows.overdue import limit_of, measure_of
from detectors.windows.ratios import RATIO_PARTS
from detectors.windows.store import WindowStore
from detectors.windows.unread_sums import FieldSums
from detectors.windows.unreadable import unreadable_of
from detectors.windows.window import Window

Reasons = NDArray[np.int8]

_BY_INSTANCE = {*RATIO_PARTS, *LATENCIES}
"""The metrics that can be judged without some instances. A throughput needs all of them, and measures are not kept by
instance."""


class _Group(NamedTuple):
    """Triggers whose values are computed together: they have the same windows and metric.

    `at` (r,) are their numbers, `rows` (k, r) their rows in each of k windows. `unread` (r,) are the places of the
    unreadable values of their field, and `unread_in` the sums of those, one per window.
    """

    windows: tuple[int, ...]
    metric: Metric
    measure: str | None
    limit_ms: float | None
    at: Int
    rows: Int
    quantile: Float
    unread: Int
    unread_in: tuple[FieldSums, ...]


class ValueBounds(NamedTuple):
    """Bounds for windows that lack too much; every array is (p,).

    `low` and `high` are the least and the greatest value that the metric may have. If `judged`, they are of the
    instances that can be judged, which have `samples`; else of all samples, whatever the missing ones were.
    """

    low: Float
    high: Float
    judged: Bool
    samples: Int


class WindowReadings:
    """Reads the windows of `scopes`, one for each of `specs`; None for a trigger without one."""

    def __init__(
        self,
        specs: Sequence[TriggerSpec],
        scopes: Sequence[Scope | None],
        store: WindowStore,
        instances: JudgedInstances,
        variants: UnreadVariants,
        unattributed: UnattributedLoss,
    ) -> None:
        self._store = store
        self._unattributed = unattributed
        self._variants = variants
        self._instances = instances
        self._n = len(specs)
        self._min_samples = np.array([s.min_samples for s in specs], dtype=np.int64)
        self._groups = _groups(store, specs, scopes)
        self._group = np.full(self._n, -1, dtype=np.int64)
        for number, group in enumerate(self._groups):
            self._group[group.at] = number
        self._place = np.zeros(self._n, dtype=np.int64)
        for group in self._groups:
            self._place[group.at] = np.arange(len(group.at))
        self.slots = np.array([-1 if scope is None else store.slot(scope) for scope in scopes], dtype=np.int64)

    def measure(self, begin: Int) -> Measured:
        """Read the windows as they are now.

        `begin` (n,) is the first second of the flag's version. A window with too few samples is replaced by a longer
        one only if that does not reach further back: requests of an earlier version would count against this one for as
        long as the longest window.
        """
        n, end = self._n, self._store.end or 0
        measured = Measured(
            value=np.full(n, np.nan),
            samples=np.zeros(n, dtype=np.int64),
            unknown=np.zeros(n, dtype=np.int8),
            window=np.zeros(n, dtype=np.int64),
            requests=np.zeros(n, dtype=np.int64),
            missing=Missing.nothing(n),
            judged=np.zeros(n, dtype=bool),
            slots=self.slots.copy(),
        )
        for group in self._groups:
            for seconds in group.windows[1:]:
                # Sum the longer windows in every evaluation, so that low traffic at night does not need all of them at
                # once.
                self._store.window(seconds).settle()
            wanting = np.arange(len(group.at))
            for number, seconds in enumerate(group.windows):
                at, rows = group.at[wanting], group.rows[number][wanting]
                found, count = compute(
                    self._store,
                    seconds,
                    group.metric,
                    rows,
                    quantile=group.quantile[wanting],
                    measure=group.measure,
                    limit_ms=group.limit_ms,
                )
                window = self._store.window(seconds)
                few = count < self._min_samples[at]
                measured.value[at], measured.samples[at], measured.window[at] = found, count, seconds
                # If several reasons apply, the lowest number wins, so it is assigned last.
                why = np.where(np.isnan(found), np.int8(UnknownReason.NO_VALUE), np.int8(UnknownReason.NONE))
                why[few] = UnknownReason.FEW_SAMPLES
                empty = np.flatnonzero((count == 0) & (rows >= 0))
                measured.requests[at[empty]] = window.sums[REQUESTS][rows[empty]]
                self._note_missing(measured, group, number, wanting, count, why)
                why[rows < 0] = UnknownReason.NOT_KEPT
                measured.unknown[at] = why
                # A window without samples is not replaced: a longer one would still show what was before the silence.
                wanting = wanting[few & (count > 0)]
                if number + 1 < len(group.windows):
                    wanting = wanting[begin[group.at[wanting]] <= end - group.windows[number + 1]]
                if not len(wanting):
                    break
        return measured

    def incomplete(self, measured: Measured, at: Int, *, whole: bool = False) -> ValueBounds:
        """Return the bounds of the triggers `at` (p,), whose windows lack too much.

        With `whole` they are of all samples that were sent, not only of the instances that can be judged.
        """
        p = len(at)
        found = ValueBounds(
            np.full(p, np.nan), np.full(p, np.nan), np.zeros(p, dtype=bool), measured.samples[at].copy()
        )
        which = self._group[at]
        for number in np.unique(which[which >= 0]).tolist():
            group = self._groups[number]
            for seconds in np.unique(measured.window[at[which == number]]).tolist():
                here = np.flatnonzero((which == number) & (measured.window[at] == seconds))
                self._bound(found, group, seconds, here, at[here], measured, whole=whole)
        return found

    def _bound(
        self, found: ValueBounds, group: _Group, seconds: int, here: Int, at: Int, measured: Measured, *, whole: bool
    ) -> None:
        """Enter the bounds of the triggers `at` (q,), of one group and window, at the places `here` (q,) of `found`."""
        window = self._store.window(seconds)
        rows = group.rows[group.windows.index(seconds)][self._place[at]]
        counts, missing = window.sums[: len(COUNTS)][:, rows].T, measured.missing.lost[at]
        judged = np.zeros(len(at), dtype=bool)
        rest = counts
        if group.metric in _BY_INSTANCE and not whole:
            outcome = asks_outcome(group.metric)
            kept = self._instances.judged(seconds, self.slots[at], outcome=outcome)
            samples = _samples(group.metric, kept.counts)
            # Unattributed samples may belong to any instance, and unreadable values are not counted by instance.
            lost = missing_of(
                lambda column: kept.counts[:, column],
                outcome=outcome,
                unattributed=measured.missing.unattributed[at],
                unread=measured.missing.unread[at],
                read=samples,
                variant=measured.missing.variant[at],
            )
            unknown = lost.much | (lost.unattributed > 0)
            judged = kept.enough & (samples >= self._min_samples[at]) & ~unknown
            found.samples[here] = np.where(judged, samples, found.samples[here])
            rest = np.where(judged[:, np.newaxis], kept.counts, counts)
        found.judged[here] = judged
        missing = np.where(judged, 0, missing)
        if group.metric == "latency_quantile":
            found.low[here], found.high[here] = quantile_bounds(
                window,
                rows,
                group.quantile[self._place[at]],
                missing=missing,
                left_out=counts[:, LATENCY_COUNT] - rest[:, LATENCY_COUNT],
                overdue=self._overdue(group, window, rows),
            )
        else:
            found.low[here], found.high[here] = bounds(group.metric, rest, missing, seconds)

    def _overdue(self, group: _Group, window: Window, rows: Int) -> Int | None:
        """Return the sums of requests overdue for the group's latency limit, (r,); None if it has no limit."""
        if group.limit_ms is None:
            return None
        overdue: Int = window.sums[self._store.measure_columns(measure_of(group.limit_ms))[1]][rows]
        return overdue

    def _note_missing(
        self,
        measured: Measured,
        group: _Group,
        number: int,
        wanting: Int,
        count: Int,
        why: Reasons,
    ) -> None:
        """Record where too much is missing in window `number` of a group, for its triggers `wanting` (q,).

        `count` (q,) are the samples that they have.
        """
        at, rows, seconds = group.at[wanting], group.rows[number][wanting], group.windows[number]
        outcome = asks_outcome(group.metric)
        columns = (LATE, REJECTED, NO_OUTCOME) if outcome else (LATE, REJECTED)
        sums, fields = self._store.window(seconds).sums, group.unread_in[number]
        unattributed, variants = self._unattributed.over(seconds), self._variants.over(seconds)
        # Nearly always nothing is missing; testing that first is cheaper than reading every row.
        nothing = unattributed is None and variants is None and not fields.any()
        if nothing and not any(sums[column].any() for column in columns):
            return
        kept = np.flatnonzero(rows >= 0)
        missing = missing_of(
            lambda column: sums[column][rows[kept]],
            outcome=outcome,
            unattributed=0 if unattributed is None else unattributed[at[kept]],
            unread=fields.read(group.unread[wanting[kept]]) if fields.any() else 0,
            read=count[kept],
            variant=0 if variants is None else variants[at[kept]],
        )
        much = missing.much | (missing.unattributed > 0)
        why[kept[much]] = UnknownReason.MISSING
        for noted, lost in zip(measured.missing, missing, strict=True):
            noted[at[kept]] = np.where(much, lost, 0)


def _samples(metric: Metric, counts: Int) -> Int:
    """Return the samples of a metric in counts (q, len(COUNTS))."""
    if metric in RATIO_PARTS:
        return RATIO_PARTS[metric].of(lambda column: counts[:, column])[1]
    result: Int = counts[:, LATENCY_COUNT]
    return result


def _groups(store: WindowStore, specs: Sequence[TriggerSpec], scopes: Sequence[Scope | None]) -> list[_Group]:
    """Group the triggers that have a scope by windows, metric, measure and latency limit."""
    found: dict[tuple[tuple[int, ...], Metric, str | None, float | None], list[tuple[int, list[int], float, int]]] = {}
    for i, (spec, scope) in enumerate(zip(specs, scopes, strict=True)):
        if scope is None:
            continue
        condition = spec.condition
        key = spec.windows, condition.metric, condition.measure, limit_of(spec)
        rows = [store.row(scope, seconds) for seconds in spec.windows]
        place = store.unread.place(scope, unreadable_of(condition))
        found.setdefault(key, []).append((i, rows, condition.quantile or 0.5, place))
    return [
        _Group(
            *key,
            at=np.array([i for i, _, _, _ in own], dtype=np.int64),
            rows=np.array([rows for _, rows, _, _ in own], dtype=np.int64).T,
            quantile=np.array([q for _, _, q, _ in own], dtype=np.float64),
            unread=np.array([place for _, _, _, place in own], dtype=np.int64),
            unread_in=tuple(store.unread.window(seconds) for seconds in key[0]),
        )
        for key, own in found.items()
    ]
