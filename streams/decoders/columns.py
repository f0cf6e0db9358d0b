"""The result of every decoder: columns of samples, and the reasons why records were rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int
from streams.decoders.faults import Faults, Why
from streams.decoders.interner import NO_INSTANCE, Table
from streams.decoders.profiles import INVALID
from streams.slices import Source
from streams.telemetry.sample import MAX_N, MAX_NAME, REJECTED_KIND, STARTED_KIND

Text = NDArray[np.object_]

RejectKind = Literal["empty", "oversized", "malformed", "invalid", "future", "past", "overflow"]
"""empty: no value; oversized: over 4 MiB; malformed: not the format; invalid: a field's value; future: ahead of now.

Snapshots of counters only: past: not newer than the last of the series; overflow: there is no place for the series.
"""

MOST_REASONS: Final = 3
LONGEST_REASON: Final = 300


class Reject(NamedTuple):
    """A record that was not counted, or only in part: `rows` samples are missing (1 if the number is unknown)."""

    source: Source
    offset: int
    kind: RejectKind
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Samples in the order of the records; every column but `measure_*`, `id_row` and `ids` has one entry a sample.

    `record` is the index of the record in the slice, `ts` is in Unix seconds, `profile` and `instance` are numbers of
    the table that decoded them, `kind` indexes `sample.KIND_COUNTS` or is STARTED_KIND, `latency_ms` is nan if absent.
    A sample of REJECTED_KIND is not a request, but its service is known. Measure j belongs to sample `measure_row[j]`
    and has the number `measure_id[j]`. Sample `id_row[j]` (ascending) has the id `ids[j]`, a str.
    """

    record: Int
    ts: Float
    profile: Int
    instance: Int
    kind: Int
    n: Int
    latency_ms: Float
    measure_row: Int
    measure_id: Int
    measure_value: Float
    id_row: Int
    ids: Text

    def __len__(self) -> int:
        return len(self.ts)

    def where(self, keep: NDArray[np.bool_]) -> Columns:
        """The samples for which `keep` (n,) is true."""
        if keep.all():
            return self
        kept = keep[self.measure_row]
        row = (np.cumsum(keep) - 1)[self.measure_row[kept]]
        columns: dict[str, Any] = {name: getattr(self, name)[keep] for name in _PER_SAMPLE}
        columns |= {"measure_row": row, "measure_id": self.measure_id[kept], "measure_value": self.measure_value[kept]}
        kept = keep[self.id_row]
        return Columns(**columns, id_row=(np.cumsum(keep) - 1)[self.id_row[kept]], ids=self.ids[kept])

    @property
    def misidentified(self) -> NDArray[np.bool_]:
        """Which samples (n,) are starts without an id, or starts with a weight above 1."""
        starts: NDArray[np.bool_] = self.kind == STARTED_KIND
        identified = np.zeros(len(starts), dtype=bool)
        identified[self.id_row] = self.n[self.id_row] == 1
        return starts & ~identified

    def with_measure(self, rows: Int, measure: int | Int) -> Columns:
        """The columns with a measure of value 1 added to `rows` (r,); `measure` is its number, one for all or (r,)."""
        if not len(rows):
            return self
        return replace(
            self,
            measure_row=np.concatenate([self.measure_row, rows]),
            measure_id=np.concatenate([self.measure_id, np.broadcast_to(measure, rows.shape)]),
            measure_value=np.concatenate([self.measure_value, np.ones(len(rows))]),
        )

    def without_requests(self, bad: NDArray[np.bool_], table: Table) -> Columns:
        """The columns with the `bad` samples (n,) as rejected samples of their service, not as requests."""
        profile, kind, latency_ms = self.profile.copy(), self.kind.copy(), self.latency_ms.copy()
        for number in np.unique(profile[bad]).tolist():
            profile[bad & (self.profile == number)] = table.whole(number)
        kind[bad], latency_ms[bad] = REJECTED_KIND, np.nan
        kept, named = ~bad[self.measure_row], ~bad[self.id_row]
        return replace(
            self,
            profile=profile,
            kind=kind,
            n=np.where(bad & ((self.n < 1) | (self.n > MAX_N)), 1, self.n),
            latency_ms=latency_ms,
            measure_row=self.measure_row[kept],
            measure_id=self.measure_id[kept],
            measure_value=self.measure_value[kept],
            id_row=self.id_row[named],
            ids=self.ids[named],
        )


_PER_SAMPLE = [part.name for part in fields(Columns) if not part.name.startswith(("measure_", "id"))]
_NONE = np.empty(0, dtype=np.int64)
_NO_FLOATS = np.empty(0)
NO_MEASURES: Final = (_NONE, _NONE, _NO_FLOATS)
NO_IDS: Final[tuple[Int, Text]] = (_NONE, np.empty(0, dtype=object))
NO_COLUMNS: Final = Columns(_NONE, _NO_FLOATS, _NONE, _NONE, _NONE, _NONE, _NO_FLOATS, *NO_MEASURES, *NO_IDS)


def joined(parts: Sequence[Columns]) -> Columns:
    """The samples of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_COLUMNS
    starts = np.cumsum([0, *map(len, parts)])
    names = [*_PER_SAMPLE, "measure_id", "measure_value", "ids"]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    for name in ("measure_row", "id_row"):
        columns[name] = np.concatenate([getattr(part, name) + at for part, at in zip(parts, starts, strict=False)])
    return Columns(**columns)


@dataclass(slots=True)
class _Against:
    kind: RejectKind
    reasons: list[str] = field(default_factory=list)
    rows: int = 0


class Rejects:
    """Collects the reasons why records are rejected; a record with many bad rows becomes one entry.

    `faults` counts them, and the fields that were dropped from samples that count. `unread` is the number of rejected
    samples whose service is unknown.
    """

    def __init__(self) -> None:
        self._against: dict[int, _Against] = {}
        self.faults = Faults()
        self.unread = 0

    def __bool__(self) -> bool:
        return bool(self._against)

    def add(
        self,
        record: int,
        kind: RejectKind,
        why: Why,
        row: int | None = None,
        rows: int = 1,
        *,
        unread: int | None = None,
    ) -> None:
        """Add a reason to reject a record (an index of the slice), or `rows` of its rows, the first of them `row`.

        `unread` is how many of the rows have an unknown service, None for all; the others are in the columns.
        """
        self.faults.add("rejected", why, rows)
        self.unread += rows if unread is None else unread
        reason = str(why)
        found = self._against.setdefault(record, _Against(kind))
        found.rows += rows
        if len(found.reasons) < MOST_REASONS:
            place = "" if row is None else f"row {row}: " if rows == 1 else f"row {row} and {rows - 1} more: "
            found.reasons.append(place + reason[:LONGEST_REASON])

    def entries(self, source: Source, offsets: Sequence[int]) -> list[Reject]:
        """One entry a record, by offset; `offsets` are those of the slice."""
        result = []
        for record, against in sorted(self._against.items()):
            reason = "; ".join(against.reasons)
            if against.rows > 1:
                reason = f"{against.rows} rows: {reason}"
            result.append(Reject(source, offsets[record], against.kind, reason, against.rows))
        return result


_INSTANCE: Final = Why("instance", f"must be a text of at most {MAX_NAME} characters that print")
_MEASURE: Final = Why("measures", f"the name of a measure must have 1 to {MAX_NAME} characters that print")
_ID: Final = Why("id", "names one request, so n must be 1")


def cleaned(columns: Columns, table: Table, faults: Faults) -> Columns:
    """Drop the fields that every format checks alike: names of instances and measures, ids, variants."""
    unnamed = columns.instance == INVALID
    if unnamed.any():
        faults.add("dropped", _INSTANCE, int(np.count_nonzero(unnamed)))
        columns = replace(columns, instance=np.where(unnamed, NO_INSTANCE, columns.instance))
    bad = columns.measure_id == INVALID
    if bad.any():
        faults.add("dropped", _MEASURE, int(np.count_nonzero(bad)))
        columns = replace(
            columns,
            measure_row=columns.measure_row[~bad],
            measure_id=columns.measure_id[~bad],
            measure_value=columns.measure_value[~bad],
        )
    if len(columns.ids):
        several = columns.n[columns.id_row] != 1
        if several.any():
            faults.add("dropped", _ID, int(np.count_nonzero(several)))
            columns = replace(columns, id_row=columns.id_row[~several], ids=columns.ids[~several])
    for profile, unread in table.unread.items():
        rows = np.flatnonzero((columns.profile == profile) & (columns.kind < REJECTED_KIND))
        for measure, why in unread:
            if len(rows):
                faults.add("dropped", why, len(rows))
                columns = columns.with_measure(rows, measure)
    return columns
