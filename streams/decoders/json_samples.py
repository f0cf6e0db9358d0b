"""Decodes JSON telemetry to columns: one object a record, an array of objects, or one object a line (NDJSON).

Each record is decoded by one call, which takes 0.47 us. Joining a slice to one array for a single call is slower (the
join alone takes 0.4 us a record) and could not distinguish `{..},{..}` in one record from two records. Columns are then
made field by field: a comprehension over one attribute takes 15 ns a sample, a tuple of all attributes 300 ns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, cast

import msgspec
import numpy as np
from msgspec import Raw

from detectors.arrays import Float, Int
from streams.decoders.columns import NO_COLUMNS, NO_IDS, NO_MEASURES, Columns, Rejects, Text
from streams.decoders.faults import Why, shown
from streams.decoders.hints import look_alikes, recognised
from streams.decoders.interner import Interner, Measures, Table
from streams.decoders.json_rows import MISIDENTIFIED, Row, mend
from streams.decoders.lenient import loose
from streams.decoders.profiles import INVALID
from streams.telemetry.sample import HIT_KIND, MAX_RECORD_BYTES, NO_OUTCOME_KIND, Kinds

_row: Final[Callable[[bytes | Raw], Row]] = msgspec.json.Decoder(Row).decode
_rows: Final = msgspec.json.Decoder(list[Row]).decode
_raws: Final = msgspec.json.Decoder(list[Raw]).decode
_kinds: Final = Kinds()

# RecursionError: thousands of nested arrays in an unknown field.
_FAULTS: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_LONGEST_LOOK: Final = 1 << 16
"""Bytes of a record up to which it is searched for other names of missing fields."""
_SHOWN: Final = 60
"""Bytes that are shown of a record that cannot be read."""
_WHOLE: Final = -1
"""Row number of a sample that is its own record."""


class JsonRun:
    """The samples of consecutive records of a slice; `first` is the index of the first of them in the slice."""

    def __init__(self, first: int, values: Sequence[bytes | None], stamps: Float, rejects: Rejects) -> None:
        """`stamps` are the times of the slice's records, infinite for a record without one."""
        self._first = first
        self._given = values
        self._stamps = stamps
        self._rejects = rejects
        self._samples: list[Row] = []
        # For each dropped field, the number of its sample and the name of the measure that counts it.
        self._unread: list[tuple[int, str]] = []
        # Record and row of every sample; both empty as long as every record is one good sample.
        self._record: list[int] = []
        self._row: list[int] = []
        # Missing and oversized values become b"", which fails to decode, so that good records need no test.
        self._values = [value or b"" for value in values] if None in values else cast("Sequence[bytes]", values)
        if max(map(len, self._values)) > MAX_RECORD_BYTES:
            self._values = [b"" if len(value) > MAX_RECORD_BYTES else value for value in self._values]

    def objects(self) -> None:
        """Decode records of one object each; a record that is an array is decoded as an array."""
        done = 0
        for index in _failures(self._samples, self._values):
            self._place(range(done, index))
            done = index + 1
            if self._readable(index):
                if self._values[index].lstrip()[:1] == b"[":
                    self._array(index)
                else:
                    self._mend(index, self._values[index])
        if done:
            self._place(range(done, len(self._values)))

    def arrays(self) -> None:
        """Decode records of one array of objects each."""
        for index in filter(self._readable, range(len(self._values))):
            self._array(index)

    def lines(self) -> None:
        """Decode records of one object a line; blank lines are skipped."""
        for index in filter(self._readable, range(len(self._values))):
            self._rows(index, self._values[index].rstrip().split(b"\n"))

    def columns(self, interner: Interner, table: Table) -> Columns:
        """The samples as columns, without those whose environment or service cannot be used."""
        samples = self._samples
        if not samples:
            return NO_COLUMNS
        size = len(samples)
        keys = [(s.environment, s.service, bytes(s.flags)) for s in samples]
        instances = [s.instance for s in samples]
        kinds = [(s.status, s.outcome, s.cache, s.kind) for s in samples]
        measures = _measures([s.measures for s in samples], interner.measures)
        id_row, ids = _ids([s.id for s in samples])
        columns = Columns(
            record=np.array(self._record, dtype=np.int64)
            if self._record
            else np.arange(self._first, self._first + size),
            ts=np.array([s.ts for s in samples], dtype=np.float64),
            profile=np.fromiter(map(table.json.__getitem__, keys), dtype=np.int64, count=size),
            instance=np.fromiter(map(table.instances.__getitem__, instances), dtype=np.int64, count=size),
            kind=np.fromiter(map(_kinds.__getitem__, kinds), dtype=np.int64, count=size),
            n=_counts([s.n for s in samples]),
            # numpy converts None to nan.
            latency_ms=np.array([s.latency_ms for s in samples], dtype=np.float64),
            measure_row=measures[0],
            measure_id=measures[1],
            measure_value=measures[2],
            id_row=id_row,
            ids=ids,
        )
        for name in dict.fromkeys(name for _, name in self._unread):
            number = interner.unreadable.get(name)
            if number is not None:
                rows = np.array([row for row, unread in self._unread if unread == name], dtype=np.int64)
                columns = columns.with_measure(rows, number)
        self._hint(columns)
        misidentified = columns.misidentified
        if misidentified.any():
            for index in np.flatnonzero(misidentified).tolist():
                self._rejects.add(int(columns.record[index]), "invalid", MISIDENTIFIED, self._row_of(index), unread=0)
            columns = columns.without_requests(misidentified, table)
        good = columns.profile != INVALID
        if good.all():
            return columns
        for index in np.flatnonzero(~good).tolist():
            why = Why("record", table.json.explain(keys[index]))
            self._rejects.add(int(columns.record[index]), "invalid", why, self._row_of(index))
        return columns.where(good)

    def _hint(self, columns: Columns) -> None:
        """Report other names of missing fields, as found in the first sample without an outcome."""
        if int(columns.kind.max()) < NO_OUTCOME_KIND:
            return
        silent = np.flatnonzero((columns.kind >= NO_OUTCOME_KIND) & (columns.kind < HIT_KIND))
        if not len(silent):
            return
        value = self._values[int(columns.record[silent[0]]) - self._first]
        if len(value) > _LONGEST_LOOK:
            return
        for why in look_alikes(value, self._row_of(int(silent[0])) or 0):
            self._rejects.faults.add("missing", why, len(silent))

    def _row_of(self, index: int) -> int | None:
        row = self._row[index] if self._row else _WHOLE
        return None if row == _WHOLE else row

    def _mend(self, index: int, value: bytes | Raw, row: int = _WHOLE) -> None:
        try:
            given = loose(value)
        except (ValueError, RecursionError):
            why = Why("record", recognised(bytes(value)) or "is no JSON", shown(bytes(value)[:_SHOWN]))
            self._rejects.add(self._first + index, "malformed", why, None if row == _WHOLE else row)
        else:
            self._mend_object(index, given, row)

    def _mend_object(self, index: int, given: object, row: int) -> None:
        """Add a sample that the strict decoder refused: without the bad fields, or as a rejected one."""
        mended = mend(given, float(self._stamps[self._first + index]))
        if mended.rejected is not None:
            place, unread = None if row == _WHOLE else row, int(mended.row is None)
            self._rejects.add(self._first + index, "invalid", mended.rejected, place, unread=unread)
        for why in mended.dropped:
            self._rejects.faults.add("dropped", why)
        if mended.row is not None:
            self._unread += [(len(self._samples), name) for name in mended.unread]
            self._samples.append(mended.row)
            self._record.append(self._first + index)
            self._row.append(row)

    def _readable(self, index: int) -> bool:
        given = self._given[index]
        if given is None:
            self._rejects.add(self._first + index, "empty", Why("record", "has no value"))
        elif len(given) > MAX_RECORD_BYTES:
            why = Why("record", f"must have {MAX_RECORD_BYTES:,} bytes at most", f"{len(given):,}")
            self._rejects.add(self._first + index, "oversized", why)
        else:
            return True
        return False

    def _array(self, index: int) -> None:
        value = self._values[index]
        try:
            rows = _rows(value)
        except _FAULTS:
            try:
                self._rows(index, _raws(value))
            except _FAULTS:
                self._loose_array(index, value)
        else:
            self._samples.extend(rows)
            self._place_rows(index, range(len(rows)))

    def _loose_array(self, index: int, value: bytes) -> None:
        """Decode an array that is not strict JSON, such as one with NaN in it."""
        try:
            given = loose(value)
        except (ValueError, RecursionError):
            why = Why("record", recognised(value) or "is no JSON", shown(value[:_SHOWN]))
            self._rejects.add(self._first + index, "malformed", why)
            return
        if not isinstance(given, list):
            why = Why("record", recognised(given) or "must be an array of objects", shown(given))
            self._rejects.add(self._first + index, "invalid", why)
            return
        for row, one in enumerate(given):
            self._mend_object(index, one, row)

    def _rows(self, index: int, rows: Sequence[bytes | Raw]) -> None:
        done = 0
        for row in _failures(self._samples, rows):
            self._place_rows(index, range(done, row))
            done = row + 1
            if bytes(rows[row]).strip():
                self._mend(index, rows[row], row)
        self._place_rows(index, range(done, len(rows)))

    def _place(self, records: range) -> None:
        self._record.extend(range(self._first + records.start, self._first + records.stop))
        self._row.extend([_WHOLE] * len(records))

    def _place_rows(self, index: int, rows: range) -> None:
        self._record.extend([self._first + index] * len(rows))
        self._row.extend(rows)


def _failures(samples: list[Row], values: Iterable[bytes | Raw]) -> Iterator[int]:
    """Append the decoded samples to `samples`; yield the index of each value that fails to decode."""
    rest = iter(values)
    index = 0
    while True:
        before = len(samples)
        try:
            samples.extend(map(_row, rest))
            return
        except _FAULTS:
            index += len(samples) - before
            yield index
            index += 1


def _counts(n: list[int | None]) -> Int:
    if n.count(1) == len(n):
        return np.ones(len(n), dtype=np.int64)
    return np.array([1 if count is None else count for count in n], dtype=np.int64)


def _ids(given: list[str | None]) -> tuple[Int, Text]:
    """Row and id of every sample that has an id."""
    if given.count(None) == len(given):
        return NO_IDS
    rows = [row for row, one in enumerate(given) if one is not None]
    ids = np.empty(len(rows), dtype=object)
    ids[:] = [given[row] for row in rows]
    return np.array(rows, dtype=np.int64), ids


def _measures(given: list[dict[str, float] | None], numbers: Measures) -> tuple[Int, Int, Float]:
    """Row, measure number and value of every measure."""
    if not any(given):
        return NO_MEASURES
    maps = [one or {} for one in given]
    row = np.repeat(np.arange(len(maps)), np.fromiter(map(len, maps), dtype=np.int64, count=len(maps)))
    number = np.fromiter(map(numbers.__getitem__, chain.from_iterable(maps)), dtype=np.int64, count=len(row))
    value = np.fromiter(chain.from_iterable(map(dict.values, maps)), dtype=np.float64, count=len(row))
    return row, number, value
