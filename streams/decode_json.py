"""JSON telemetry to columns: one object a record, an array of them, or one a line (NDJSON).

A record is decoded on its own. Joining a slice to one array for one call of the decoder is slower (the join alone takes
0.4 us a record, one call a record 0.47 us in all) and would have to tell `{..},{..}` in one record from two records.
Columns are then made field by field: a comprehension over one attribute takes 15 ns a sample, a tuple of all 300.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, cast

import msgspec
import numpy as np
from msgspec import Raw

from detectors.cells import Int
from streams.decode_columns import (
    MISIDENTIFIED,
    NO_COLUMNS,
    NO_IDS,
    NO_MEASURES,
    Columns,
    Float,
    RejectKind,
    Rejects,
    Text,
)
from streams.intern import INVALID, Interner, Measures, Table
from streams.sample import (
    DEFAULT_ENVIRONMENT,
    MAX_RECORD_BYTES,
    Cache,
    Id,
    Instance,
    Kinds,
    Latency,
    Measure,
    Multiplicity,
    Name,
    Outcome,
    Phase,
    Route,
    Status,
    Time,
)

_NO_FLAGS: Final = Raw()


class Row(msgspec.Struct, gc=False):
    """`sample.Sample` with flags left encoded: their bytes are looked up, which spares a dict a sample."""

    ts: Time
    service: Name
    environment: Name | None = DEFAULT_ENVIRONMENT
    route: Route | None = None
    instance: Instance | None = None
    status: Status | None = None
    outcome: Outcome | None = None
    latency_ms: Latency | None = None
    cache: Cache | None = None
    flags: Raw = _NO_FLAGS
    measures: dict[str, Measure] | None = None
    n: Multiplicity | None = 1
    kind: Phase | None = "completed"
    id: Id | None = None


_row: Final[Callable[[bytes | Raw], Row]] = msgspec.json.Decoder(Row).decode
_rows: Final = msgspec.json.Decoder(list[Row]).decode
_raws: Final = msgspec.json.Decoder(list[Raw]).decode
_kinds: Final = Kinds()

# RecursionError: thousands of nested arrays in a field nobody asked for.
_FAULTS: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_WHOLE: Final = -1
"""Row number of a sample that is a record of its own."""


class JsonRun:
    """The samples of consecutive records of a slice; `first` is the index of the first of them there."""

    def __init__(self, first: int, values: Sequence[bytes | None], rejects: Rejects) -> None:
        self._first = first
        self._given = values
        self._rejects = rejects
        self._samples: list[Row] = []
        # Record and row of every sample; empty as long as every record was one good sample.
        self._record: list[int] = []
        self._row: list[int] = []
        # What may not be decoded is replaced by what does not decode, so that good records cost no test.
        self._values = [value or b"" for value in values] if None in values else cast("Sequence[bytes]", values)
        if max(map(len, self._values)) > MAX_RECORD_BYTES:
            self._values = [b"" if len(value) > MAX_RECORD_BYTES else value for value in self._values]

    def objects(self) -> None:
        """Take records of one object each; one that is an array after all is taken as such."""
        done = 0
        for index, error in _failures(self._samples, self._values):
            self._place(range(done, index))
            done = index + 1
            if self._readable(index):
                if self._values[index].lstrip()[:1] == b"[":
                    self._array(index)
                else:
                    self._rejects.add(self._first + index, _kind(error), str(error))
        if done:
            self._place(range(done, len(self._values)))

    def arrays(self) -> None:
        """Take records of one array of objects each."""
        for index in filter(self._readable, range(len(self._values))):
            self._array(index)

    def lines(self) -> None:
        """Take records of one object a line each; blank lines are nothing."""
        for index in filter(self._readable, range(len(self._values))):
            self._rows(index, self._values[index].rstrip().split(b"\n"))

    def columns(self, interner: Interner, table: Table) -> Columns:
        """The samples as columns, without those whose names are not fit to be kept."""
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
            # numpy reads None as nan.
            latency_ms=np.array([s.latency_ms for s in samples], dtype=np.float64),
            measure_row=measures[0],
            measure_id=measures[1],
            measure_value=measures[2],
            id_row=id_row,
            ids=ids,
        )
        misidentified = columns.misidentified
        good = (columns.profile != INVALID) & (columns.instance != INVALID) & ~misidentified
        good[columns.measure_row[columns.measure_id == INVALID]] = False
        for index in np.flatnonzero(~good).tolist():
            if columns.profile[index] == INVALID:
                reason = table.json.explain(keys[index])
            elif columns.instance[index] == INVALID:
                reason = table.instances.explain(instances[index] or "")
            elif misidentified[index]:
                reason = MISIDENTIFIED
            else:
                reason = interner.measures.explain(samples[index].measures or {})
            row = self._row[index] if self._row else _WHOLE
            self._rejects.add(int(columns.record[index]), "invalid", reason, None if row == _WHOLE else row)
        return columns.where(good)

    def _readable(self, index: int) -> bool:
        given = self._given[index]
        if given is None:
            self._rejects.add(self._first + index, "empty", "the record has no value")
        elif len(given) > MAX_RECORD_BYTES:
            reason = f"{len(given)} bytes, at most {MAX_RECORD_BYTES} are read"
            self._rejects.add(self._first + index, "oversized", reason)
        else:
            return True
        return False

    def _array(self, index: int) -> None:
        try:
            rows = _rows(self._values[index])
        except _FAULTS:
            try:
                self._rows(index, _raws(self._values[index]))
            except _FAULTS as error:
                self._rejects.add(self._first + index, _kind(error), str(error))
        else:
            self._samples.extend(rows)
            self._place_rows(index, range(len(rows)))

    def _rows(self, index: int, rows: Sequence[bytes | Raw]) -> None:
        done = 0
        for row, error in _failures(self._samples, rows):
            self._place_rows(index, range(done, row))
            done = row + 1
            if bytes(rows[row]).strip():
                self._rejects.add(self._first + index, _kind(error), str(error), row)
        self._place_rows(index, range(done, len(rows)))

    def _place(self, records: range) -> None:
        self._record.extend(range(self._first + records.start, self._first + records.stop))
        self._row.extend([_WHOLE] * len(records))

    def _place_rows(self, index: int, rows: range) -> None:
        self._record.extend([self._first + index] * len(rows))
        self._row.extend(rows)


def _failures(samples: list[Row], values: Iterable[bytes | Raw]) -> Iterator[tuple[int, Exception]]:
    """Append the samples that the values hold; yield index and error of each value that holds none."""
    rest = iter(values)
    index = 0
    while True:
        before = len(samples)
        try:
            samples.extend(map(_row, rest))
            return
        except _FAULTS as error:
            index += len(samples) - before
            yield index, error
            index += 1


def _kind(error: Exception) -> RejectKind:
    return "invalid" if isinstance(error, msgspec.ValidationError) else "malformed"


def _counts(n: list[int | None]) -> Int:
    if n.count(1) == len(n):
        return np.ones(len(n), dtype=np.int64)
    return np.array([1 if count is None else count for count in n], dtype=np.int64)


def _ids(given: list[str | None]) -> tuple[Int, Text]:
    """Row and id of every sample that has one."""
    if given.count(None) == len(given):
        return NO_IDS
    rows = [row for row, one in enumerate(given) if one is not None]
    ids = np.empty(len(rows), dtype=object)
    ids[:] = [given[row] for row in rows]
    return np.array(rows, dtype=np.int64), ids


def _measures(given: list[dict[str, float] | None], numbers: Measures) -> tuple[Int, Int, Float]:
    """Row, number and value of every measure."""
    if not any(given):
        return NO_MEASURES
    maps = [one or {} for one in given]
    row = np.repeat(np.arange(len(maps)), np.fromiter(map(len, maps), dtype=np.int64, count=len(maps)))
    number = np.fromiter(map(numbers.__getitem__, chain.from_iterable(maps)), dtype=np.int64, count=len(row))
    value = np.fromiter(chain.from_iterable(map(dict.values, maps)), dtype=np.float64, count=len(row))
    return row, number, value
