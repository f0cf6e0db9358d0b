"""Reduces the samples of one source partition to cells: which second a sample counts in, and which seconds are closed.

Cells depend on the order of the samples and on the arguments of `close`, never on how samples are divided into batches.
A sample is late if its second is closed, or ended at least `max_lateness` before the time that the partition has
reached (`progress`). A late sample counts as late in the oldest second that is still open. Starts of requests are
followed in `in_flight` and count in no cell. See docs/state-and-delivery.md#event-time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int
from detectors.cell_operations import empty
from detectors.cells import Cells
from streams.decoders.columns import Columns, Reject, Rejects
from streams.decoders.decoder import SampleBatch
from streams.decoders.faults import Why
from streams.decoders.interner import Interner, Measures, Table
from streams.grouped_sums import dense
from streams.ingest.block import finished
from streams.ingest.fold import Rows, fold, stacked
from streams.ingest.in_flight import InFlight, summed_up
from streams.ingest.open_sums import OpenSums
from streams.ingest.progress import Progress
from streams.slices import Source
from streams.telemetry.sample import LATE_KIND, REJECTED_KIND, STARTED_KIND

MAX_FUTURE: Final = 60.0
"""Seconds a sample may be ahead of the clock before it is rejected."""
AHEAD: Final = Why("ts", f"is more than {MAX_FUTURE:.0f} s ahead of the clock")

_FOLD_AT: Final = 1 << 15
"""Samples that are kept before they are summed: few enough for the processor's caches."""
_FEW_SECONDS: Final = 8
"""Span in seconds of a batch up to which `_note_first` searches for each second separately."""


@dataclass(slots=True)
class Stats:
    """Counts of a reducer since it began: `records` in records, `samples` and `rejected` (by kind) in samples.

    `late` and `clamped` are samples. `overflow` are requests with a scope for which there was no place,
    `unkept_measures` values of measures for which there was none. `forgotten` are requests that were no longer followed
    although no end was seen. `unread` are rejected samples whose service is unknown.
    """

    records: int = 0
    samples: int = 0
    late: int = 0
    clamped: int = 0
    overflow: int = 0
    unkept_measures: int = 0
    forgotten: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    unread: int = 0


class UnreportedCounts(NamedTuple):
    """Counts that no partial has reported yet; see `streams.partials.record.Partial`."""

    overflow: int = 0
    received: int = 0
    rejected: int = 0


class Reducer:
    """The open seconds of one source partition; `max_lateness` in seconds."""

    def __init__(self, source: Source, interner: Interner, max_lateness: float) -> None:
        self.stats = Stats()
        self._source = source
        self._interner = interner
        self._max_lateness = max_lateness
        self._progress = Progress()
        self._closed: float = -math.inf
        self._next_offset: int | None = None
        self._first_offsets: dict[int, int] = {}
        self._table: Table | None = None
        self._pending: list[Rows] = []
        self._pending_rows = 0
        self._sums = OpenSums()
        self._reported = UnreportedCounts()
        self._in_flight = InFlight()
        # The earliest second that has a sample or a crossing, infinite if none has.
        self._oldest: float = math.inf

    @property
    def reached(self) -> float | None:
        """The time that the samples have reached, at most the clock's when they arrived; None before it is known."""
        return self._progress.reached

    @property
    def newest(self) -> float | None:
        """Time of the newest sample, at most the clock's when it arrived; None before the first."""
        return None if self._progress.newest == -math.inf else self._progress.newest

    @property
    def committable(self) -> int | None:
        """The offset from which a reader must start to count every open second completely; None before the first."""
        return min(self._first_offsets.values(), default=self._next_offset)

    def take_unreported(self) -> UnreportedCounts:
        """Return the counts since the last call."""
        before, stats = self._reported, self.stats
        self._reported = now = UnreportedCounts(stats.overflow, stats.samples + stats.rejected.total(), stats.unread)
        return UnreportedCounts(*(after - then for after, then in zip(now, before, strict=True)))

    def add(self, batch: SampleBatch, now: float) -> list[Reject]:
        """Add the next batch of the partition; `now` is the clock in Unix seconds, infinite in a replay.

        Returns the records with samples too far ahead of the clock. They are not in `batch.rejects`; this call counts
        them as rejected.
        """
        stats, columns = self.stats, batch.columns
        stats.records += len(batch.offsets)
        stats.clamped += batch.clamped
        for reject in batch.rejects:
            stats.rejected[reject.kind] += reject.rows
        stats.unread += batch.unread
        if len(batch.offsets):
            self._next_offset = int(batch.offsets[-1]) + 1
        ahead = columns.ts > now + MAX_FUTURE
        rejects: list[Reject] = []
        if ahead.any():
            rejects = self._future(batch, ahead & (columns.kind != REJECTED_KIND), now)
            columns = columns.without_requests(ahead, batch.table)
            # Their own time is wrong. The samples before them give a close one, even if the partition is read late.
            before = self._newest_before(columns.ts, columns.kind == REJECTED_KIND, now)
            columns = replace(columns, ts=np.where(ahead, np.where(before > 0, before, now), columns.ts))
        if not len(columns):
            return rejects
        rejected = columns.kind == REJECTED_KIND
        accepted = ~rejected if rejected.any() else None
        stats.samples += len(columns) if accepted is None else int(np.count_nonzero(accepted))

        if self._table is not batch.table:
            self._fold()
            self._table = batch.table
        # Times are positive, so this is their floor.
        second = columns.ts.astype(np.int64)
        offset = batch.offsets[columns.record]
        open_from = self._open_from(columns, accepted, batch.table.instances.names, now)
        if len(columns.ids):
            ended = columns.kind != STARTED_KIND
            if len(self._in_flight) or not ended.all():
                late = None if open_from is None else second + 1 <= open_from
                columns = replace(columns, latency_ms=self._follow(columns, offset, late, batch.table))
            if not ended.any():
                return rejects
            columns, second, offset = columns.where(ended), second[ended], offset[ended]
            open_from = None if open_from is None else open_from[ended]
        kind, latency_ms = columns.kind, columns.latency_ms
        kept = columns.measure_id != Measures.NOT_KEPT
        stats.unkept_measures += len(kept) - int(np.count_nonzero(kept))
        if open_from is None:
            self._note_first(second, offset)
        else:
            late = second + 1 <= open_from
            requests = late & (kind != REJECTED_KIND)
            stats.late += int(np.count_nonzero(requests))
            self._note_first(second[~late], offset[~late])
            second = np.where(late, open_from, second).astype(np.int64)
            kind = np.where(requests, LATE_KIND, kind)
            latency_ms = np.where(late, np.nan, latency_ms)
            kept &= ~late[columns.measure_row]
        rows = Rows(
            second=second,
            offset=offset,
            profile=columns.profile,
            instance=columns.instance,
            kind=kind,
            n=columns.n,
            latency_ms=latency_ms,
            measure_row=columns.measure_row[kept],
            measure_id=columns.measure_id[kept],
            measure_value=columns.measure_value[kept],
        )
        self._oldest = min(self._oldest, int(rows.second.min()))
        self._pending.append(rows)
        self._pending_rows += len(second)
        if self._pending_rows >= _FOLD_AT:
            self._fold()
        return rejects

    def close(self, watermark: float) -> Cells:
        """Return the cells of all seconds that end at or before `watermark`, once each, sorted by scope and second."""
        boundary = np.floor(watermark)
        self._closed = max(self._closed, boundary)
        self._first_offsets = {s: offset for s, offset in self._first_offsets.items() if s >= boundary}
        self._in_flight.close(boundary)
        self.stats.forgotten = self._in_flight.forgotten
        crossings = self._in_flight.take()
        if crossings:
            self._oldest = min(self._oldest, min(crossing.second for crossing in crossings))
            self._sums.append(summed_up(crossings, self._sums.number))
        if self._oldest >= boundary:
            return empty()
        self._fold()
        done = self._sums.take(boundary)
        self._oldest = self._sums.oldest()
        if done is None:
            return empty()
        return finished(done, self._interner.scopes, self._sums.names, self._interner.measures.names)

    def _follow(self, columns: Columns, offset: Int, late: NDArray[np.bool_] | None, table: Table) -> Float:
        """Follow requests that start or end; returns the latencies with which all samples count."""
        latency_ms = columns.latency_ms.copy()
        rows = columns.id_row
        timed = ~np.isnan(latency_ms[rows]) if late is None else ~np.isnan(latency_ms[rows]) & ~late[rows]
        about = (rows, columns.profile[rows], columns.ts[rows], offset[rows], columns.instance[rows], timed)
        started = (columns.kind[rows] == STARTED_KIND).tolist()
        for row, profile, ts, at, instance, counts, id_, starts in zip(
            *(part.tolist() for part in about), columns.ids, started, strict=True
        ):
            scopes = table.scopes(profile)
            limits = self._interner.limits.get(scopes[0]) if scopes else None
            if limits is None:
                continue
            key, name = (scopes[0], id_), table.instances.names[instance]
            if starts:
                self._in_flight.start(key, ts, offset=at, scopes=scopes, instance=name, limits=limits)
            else:
                least = self._in_flight.end(key, ts, offset=at, scopes=scopes, instance=name, timed=counts)
                if counts and least > latency_ms[row]:
                    latency_ms[row] = least
        return latency_ms

    def _newest_before(self, ts: Float, rejected: NDArray[np.bool_], now: float) -> Float:
        """The time of the newest sample before each sample, -inf before the first."""
        times = np.where(rejected, -math.inf, ts) if rejected.any() else ts
        newest = np.concatenate(([self._progress.newest], np.minimum(times[:-1], now)))
        before: Float = np.maximum.accumulate(newest)
        return before

    def _open_from(
        self, columns: Columns, accepted: NDArray[np.bool_] | None, names: Sequence[str], now: float
    ) -> Float | None:
        """The first open second at the arrival of each sample, None if no sample can be late.

        Rejected samples do not advance the time, because theirs may be wrong. `accepted` selects the others; it is
        None if no sample is rejected.
        """
        ts = columns.ts
        if float(ts.max()) > now:
            ts = np.minimum(ts, now)
        reached = self._progress.advance(ts, columns.instance, names, self._max_lateness, accepted)
        if reached is not None:
            return np.floor(np.maximum(reached - self._max_lateness, self._closed))
        return None if math.floor(columns.ts.min()) + 1 > self._closed else np.full(len(ts), self._closed)

    def _future(self, batch: SampleBatch, ahead: NDArray[np.bool_], now: float) -> list[Reject]:
        rejects = Rejects()
        records = batch.columns.record[ahead]
        seconds = batch.columns.ts[ahead] - now
        for record, first, rows in zip(*np.unique(records, return_index=True, return_counts=True), strict=True):
            why = AHEAD._replace(example=f"{seconds[first]:.0f} s")
            rejects.add(int(record), "future", why, rows=int(rows), unread=0)
        self.stats.rejected["future"] += len(records)
        return rejects.entries(self._source, batch.offsets.tolist())

    def _note_first(self, second: Int, offset: Int) -> None:
        """Record the first offset of every second; the first batch that has the second decides."""
        if not len(second):
            return
        least, most = int(second.min()), int(second.max())
        if most - least < _FEW_SECONDS:
            for one in range(least, most + 1):
                if one not in self._first_offsets and len(own := np.flatnonzero(second == one)):
                    self._first_offsets[one] = int(offset[own[0]])
            return
        seconds, at = dense(second)
        first = np.full(len(seconds), -1, dtype=np.int64)
        # If an index occurs several times numpy keeps the last value; in reverse order that is the first offset.
        first[at[::-1]] = offset[::-1]
        for index in np.flatnonzero(first >= 0).tolist():
            self._first_offsets.setdefault(int(seconds[index]), int(first[index]))

    def _fold(self) -> None:
        """Sum the samples since the last call."""
        if not self._pending or self._table is None:
            return
        pending, self._pending, self._pending_rows = self._pending, [], 0
        block, overflow = fold(stacked(pending), self._table)
        self.stats.overflow += overflow
        self._sums.add(block, self._table.instances.names)
