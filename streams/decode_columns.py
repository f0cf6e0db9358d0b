"""What every decoder makes of a run of records: columns of the good samples and the reasons against the bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.cells import Int
from streams.sample import STARTED_KIND
from streams.slices import Source

Float = NDArray[np.float64]
Text = NDArray[np.object_]

RejectKind = Literal["empty", "oversized", "malformed", "invalid", "future", "past", "overflow"]
"""empty: no value; oversized: over 4 MiB; malformed: not the format; invalid: a field's value; future: ahead of now.

Of snapshots of counters alone: past: not newer than the series' last; overflow: of a series without a place.
"""

MOST_REASONS: Final = 3
LONGEST_REASON: Final = 300


class Reject(NamedTuple):
    """A record that was not counted, or not wholly: `rows` samples of it are missing (1 where it cannot be said)."""

    source: Source
    offset: int
    kind: RejectKind
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Good samples in the order of the records and within them; one entry a sample but in `measure_*` and `id*`.

    `record` is the index of the record in the slice, `ts` in Unix seconds, `profile` and `instance` are numbers of the
    table that decoded them, `kind` indexes `sample.KIND_COUNTS` or is STARTED_KIND, `latency_ms` is nan where there is
    none. Measure j belongs to the sample `measure_row[j]` and has the number `measure_id[j]`. The request of sample
    `id_row[j]`, ascending, has the id `ids[j]`, a str.
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
        """The samples that `keep`, one boolean a sample, says."""
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
        """Which samples are starts without an id, or have one and stand for several requests."""
        bad: NDArray[np.bool_] = self.kind == STARTED_KIND
        bad[self.id_row] = self.n[self.id_row] != 1
        return bad


MISIDENTIFIED: Final = "a started sample needs an id, and one with an id is one request: n must be 1"
_PER_SAMPLE = [part.name for part in fields(Columns) if not part.name.startswith(("measure_", "id"))]
_NONE = np.empty(0, dtype=np.int64)
_NO_FLOATS = np.empty(0)
NO_MEASURES: Final = (_NONE, _NONE, _NO_FLOATS)
NO_IDS: Final[tuple[Int, Text]] = (_NONE, np.empty(0, dtype=object))
NO_COLUMNS: Final = Columns(_NONE, _NO_FLOATS, _NONE, _NONE, _NONE, _NONE, _NO_FLOATS, *NO_MEASURES, *NO_IDS)


def joined(parts: Sequence[Columns]) -> Columns:
    """The samples of all parts in their order."""
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
    """Collects the reasons against records, so that a record with many bad rows becomes one entry."""

    def __init__(self) -> None:
        self._against: dict[int, _Against] = {}

    def __bool__(self) -> bool:
        return bool(self._against)

    def add(self, record: int, kind: RejectKind, reason: str, row: int | None = None, rows: int = 1) -> None:
        """Note a reason against a record (an index of the slice): against all of it, or `rows` rows from `row` on."""
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
