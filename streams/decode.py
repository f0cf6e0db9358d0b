"""Telemetry records to columns of samples, whatever format each record has.

The content-type header of a record outranks the format that the configuration gives its topic. Header values that name
no format known here say nothing, because many producers set a generic one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from detectors.cells import Int
from streams.decode_columnar import decode_columnar
from streams.decode_columns import Columns, Reject, Rejects, joined
from streams.decode_json import JsonRun
from streams.intern import Interner, Table
from streams.sample import MAX_TIME, MIN_TIME
from streams.settings import Format
from streams.slices import Slice, Source

CONTENT_TYPES: Final[Mapping[bytes, Format]] = {
    b"application/json": "json",
    b"application/x-ndjson": "ndjson",
    b"application/ndjson": "ndjson",
    b"application/jsonl": "ndjson",
    b"application/vnd.flipback.columnar+msgpack": "columnar",
}
MAX_AHEAD: Final = 2.0
"""Seconds that a sample may be ahead of the timestamp of its record before it is taken to that timestamp."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one slice: its good ones as columns, numbered by `table`, and the records that have bad ones.

    `offsets` are those of the slice. `columns.ts` is clamped already, `clamped` says how many samples were.
    """

    source: Source
    offsets: Int
    columns: Columns
    table: Table
    rejects: list[Reject]
    clamped: int


class Decoder:
    """Decodes slices of telemetry topics; `formats` is the configured format of each topic."""

    def __init__(self, formats: Mapping[str, Format], interner: Interner) -> None:
        self._formats = formats
        self._interner = interner

    def decode(self, slice: Slice) -> Batch:
        """Decode a slice. It never fails: what is bad is among the rejects, one entry a record."""
        table = self._interner.table()
        rejects = Rejects()
        parts = [
            self._run(form, first, slice.values[first:stop], table, rejects) for form, first, stop in self._runs(slice)
        ]
        columns, clamped = _clamp(joined(parts), np.array(slice.timestamps, dtype=np.int64))
        return Batch(
            source=slice.source,
            offsets=np.array(slice.offsets, dtype=np.int64),
            columns=columns,
            table=table,
            rejects=rejects.entries(slice.source, slice.offsets) if rejects else [],
            clamped=clamped,
        )

    def _runs(self, slice: Slice) -> Iterator[tuple[Format, int, int]]:
        """Format, first and past-the-last index of every run of records of one format."""
        usual = self._formats[slice.source.topic]
        size = len(slice.values)
        if not slice.content_types:
            if size:
                yield usual, 0, size
            return
        formats = [usual] * size
        for index, header in slice.content_types.items():
            formats[index] = CONTENT_TYPES.get(header.partition(b";")[0].strip().lower(), usual)
        for form, run in groupby(range(size), formats.__getitem__):
            indices = list(run)
            yield form, indices[0], indices[-1] + 1

    def _run(self, form: Format, first: int, values: Sequence[bytes | None], table: Table, rejects: Rejects) -> Columns:
        if form == "columnar":
            return decode_columnar(first, values, self._interner, table, rejects)
        run = JsonRun(first, values, rejects)
        if form == "json":
            run.objects()
        elif form == "json-array":
            run.arrays()
        else:
            run.lines()
        return run.columns(self._interner, table)


def _clamp(columns: Columns, timestamps: Int) -> tuple[Columns, int]:
    """Take samples that are ahead of their record to the time of it; a record without a sane time clamps nothing."""
    stamped = np.where((timestamps >= MIN_TIME * 1000) & (timestamps <= MAX_TIME * 1000), timestamps / 1000, np.inf)
    record = stamped[columns.record]
    ahead = columns.ts > record + MAX_AHEAD
    clamped = int(np.count_nonzero(ahead))
    return (replace(columns, ts=np.where(ahead, record, columns.ts)), clamped) if clamped else (columns, 0)
