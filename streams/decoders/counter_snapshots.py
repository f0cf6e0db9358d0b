"""Decodes snapshots of cumulative counters: a snapshot counts the rise of its counters since the series' last snapshot.

A series is one process, identified by service, environment, instance and flags. Its first snapshot only sets the base.
The rise counts in the second of the snapshot and is not spread over the seconds before. Those are closed 2 s
(`max_lateness`) after their end; keeping them open for snapshots every 5 s would delay every verdict by 5 s.

A second reading gives the same counts. A rise in an open second needs its base again, so offsets are committed only up
to the oldest base that is still needed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from detectors.arrays import Float
from streams.decoders.columns import NO_COLUMNS, Columns, Rejects
from streams.decoders.counter_records import Counters, NotCounted, SeriesKey, attributed, read_snapshot, series_of
from streams.decoders.faults import Why, shown
from streams.decoders.interner import Table
from streams.slices import MAX_AHEAD
from streams.telemetry.sample import HIT_KIND, MISS_KIND, NO_OUTCOME_KIND, REJECTED_KIND

MAX_GAP: Final = 150.0
"""Seconds between two snapshots of a series up to which the rise is counted.

It is a little more than twice the 60 s of an OpenTelemetry exporter, so that one snapshot may be lost. The rise of a
longer gap would count in one second and outweigh the rest of the window.
"""
MAX_SERIES: Final = 10_000
"""Series of a source partition: about 5 MB at half a kilobyte each."""

_OUTCOME_KINDS: Final = range(0, NO_OUTCOME_KIND, 3)
"""Kinds of OUTCOMES without a lookup."""
_Totals = tuple[int, int, int, int, int, int]
"""In the order of `Counters`."""


@dataclass(slots=True)
class _Base:
    """The last snapshot of a series and its offset; `totals` keeps the last value of counters that it lacks.

    `told` says whether any snapshot of the series has had `errors`; without it the outcome of requests is unknown.
    """

    ts: float
    offset: int
    totals: _Totals
    told: bool


class CounterBases:
    """The last snapshot of each series of one source partition, the oldest arrival first."""

    def __init__(self) -> None:
        self._bases: OrderedDict[SeriesKey, _Base] = OrderedDict()
        # For each open second with a rise, the offset of the oldest base that the rise needs.
        self._needed: dict[int, int] = {}

    def run(
        self,
        records: range,
        values: Sequence[bytes | None],
        offsets: Sequence[int],
        stamps: Float,
        table: Table,
        rejects: Rejects,
    ) -> Columns:
        """Count the snapshots in `records` of a slice; each gives up to six samples with a weight.

        `values`, `offsets` and `stamps` (the records' times, infinite for a record without one) are of the whole slice.
        """
        rows: list[tuple[int, float, int, int, int, int]] = []
        for record in records:
            try:
                snapshot = read_snapshot(values[record], rejects)
                key, profile, instance = series_of(snapshot, table)
                # The time at which the snapshot counts; `decoder` clamps all samples like this.
                stamp = float(stamps[record])
                ts = snapshot.ts if snapshot.ts <= stamp + MAX_AHEAD else stamp
                rise, told = self._rise(key, ts, offsets[record], snapshot.counters)
            except NotCounted as error:
                # A past snapshot loses nothing: the rise of the later one contains it.
                past = error.kind == "past"
                found = None if past else attributed(values[record], float(stamps[record]), table)
                rejects.add(record, error.kind, error.why, unread=int(found is None and not past))
                if found is not None:
                    rows.append((record, *found, REJECTED_KIND, 1))
                continue
            rows += [(record, snapshot.ts, profile, instance, kind, n) for kind, n in _kinds(rise, told) if n]
        if not rows:
            return NO_COLUMNS
        record_of, ts_of, profile_of, instance_of, kind_of, n_of = zip(*rows, strict=True)
        return replace(
            NO_COLUMNS,
            record=np.array(record_of, dtype=np.int64),
            ts=np.array(ts_of, dtype=np.float64),
            profile=np.array(profile_of, dtype=np.int64),
            instance=np.array(instance_of, dtype=np.int64),
            kind=np.array(kind_of, dtype=np.int64),
            n=np.array(n_of, dtype=np.int64),
            latency_ms=np.full(len(rows), np.nan),
        )

    def close(self, watermark: float, now: float) -> int | None:
        """Forget the bases that no later snapshot needs, now that the seconds before `watermark` are closed.

        `now` is the clock's time. Returns the oldest offset that is needed, None if none is.
        """
        boundary = math.floor(watermark)
        self._needed = {second: offset for second, offset in self._needed.items() if second >= boundary}
        while self._bases:
            oldest = next(iter(self._bases.values()))
            # A series far ahead has a wrong clock and counts nothing; it must not hold back the committed offset.
            if boundary - MAX_GAP <= oldest.ts <= now + MAX_GAP:
                return min([*self._needed.values(), oldest.offset])
            self._bases.popitem(last=False)
        return min(self._needed.values(), default=None)

    def _rise(self, key: SeriesKey, ts: float, offset: int, counters: Counters) -> tuple[_Totals | None, bool]:
        """The rise of the counters, None if unknown, and whether the series has its errors. Stores the new base."""
        base = self._bases.get(key)
        told = counters.errors is not None or (base is not None and base.told)
        if base is None:
            self._make_room(ts)
            self._bases[key] = _Base(ts, offset, _totals(counters, (0, 0, 0, 0, 0, 0)), told)
            return None, told
        totals = _totals(counters, base.totals)
        gap = ts - base.ts
        if -MAX_GAP <= gap <= 0:
            if gap == 0 and totals == base.totals:
                return None, told
            said = "is older than the last snapshot of its series, or of the same time with other totals"
            raise NotCounted("past", Why("ts", said, shown(ts)))
        # After a restart all counters start at 0. Compared one by one, errors above their old total would be missed.
        fell = any(now < before for now, before in zip(totals, base.totals, strict=True))
        before = (0, 0, 0, 0, 0, 0) if fell else base.totals
        rise = None
        if 0 < gap <= MAX_GAP:
            a, b, c, d, e, f = (now - then for now, then in zip(totals, before, strict=True))
            rise = a, b, c, d, e, f
            second = int(ts)
            self._needed[second] = min(self._needed.get(second, base.offset), base.offset)
        self._bases[key] = _Base(ts, offset, totals, told)
        self._bases.move_to_end(key)
        return rise, told

    def _make_room(self, ts: float) -> None:
        """Make room for one more series by dropping silent ones. Raises NotCounted if none is silent."""
        while len(self._bases) >= MAX_SERIES:
            if ts - next(iter(self._bases.values())).ts <= MAX_GAP:
                said = f"is of another series than the {MAX_SERIES:,} of its partition: use more partitions"
                raise NotCounted("overflow", Why("record", said))
            self._bases.popitem(last=False)


def _totals(counters: Counters, last: _Totals) -> _Totals:
    a, b, c, d, e, f = (
        total if now is None else now for now, total in zip(msgspec.structs.astuple(counters), last, strict=True)
    )
    return a, b, c, d, e, f


def _kinds(rise: _Totals | None, told: bool) -> Iterator[tuple[int, int]]:
    """The kinds of samples in a rise, and the number of each.

    Counters are not read at one instant: if errors exceed requests, the requests were at least as many. A series that
    has no `errors` gives requests without an outcome: with its timeouts alone the rest would count as healthy.
    """
    if rise is None:
        return
    requests, errors, timeouts, unavailable, hits, lookups = rise
    if told:
        errors = max(errors - timeouts - unavailable, 0)
        ok = max(requests - errors - timeouts - unavailable, 0)
        yield from zip(_OUTCOME_KINDS, (ok, errors, timeouts, unavailable), strict=True)
    else:
        yield NO_OUTCOME_KIND, requests
    yield HIT_KIND, hits
    yield MISS_KIND, max(lookups - hits, 0)
