"""Decodes telemetry records to columns of samples, each record by its own format.

The content-type header of a record outranks the configured format of its topic. A header value that names no format
known here is ignored, because many producers set a generic one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from detectors.arrays import Float, Int
from streams.decoders.columnar_batches import decode_columnar
from streams.decoders.columns import Columns, Reject, Rejects, cleaned, joined
from streams.decoders.counter_snapshots import CounterBases
from streams.decoders.faults import Fault
from streams.decoders.interner import Interner, Table
from streams.decoders.json_samples import JsonRun
from streams.decoders.sources import INSTANCE, SourceRule
from streams.settings import Format
from streams.slices import MAX_AHEAD, Slice, Source
from streams.telemetry.sample import MAX_TIME, MIN_TIME

CONTENT_TYPES: Final[Mapping[bytes, Format]] = {
    b"application/json": "json",
    b"application/x-ndjson": "ndjson",
    b"application/ndjson": "ndjson",
    b"application/jsonl": "ndjson",
    b"application/vnd.flipback.columnar+msgpack": "columnar",
    b"application/vnd.flipback.counters+json": "counters",
}


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """The samples of one slice as columns, numbered by `table`, and the records that have bad ones.

    `offsets` are those of the slice. `columns.ts` is clamped (streams.slices.MAX_AHEAD) for `clamped` samples. `faults`
    counts what is wrong with samples, `unread` the rejected samples whose service is unknown.
    """

    source: Source
    offsets: Int
    columns: Columns
    table: Table
    rejects: list[Reject]
    clamped: int
    faults: list[Fault]
    unread: int


class Decoder:
    """Decodes slices of telemetry topics; `formats` is the configured format of each topic.

    The slices of a source partition must be decoded in order: a snapshot of counters depends on the one before.
    """

    def __init__(
        self, formats: Mapping[str, Format], interner: Interner, sources: Mapping[str, str] | None = None
    ) -> None:
        """`sources` maps topics to what counts as one source (streams.decoders.sources), by default the instance."""
        self._formats = formats
        self._sources = {topic: SourceRule(rule) for topic, rule in (sources or {}).items() if rule != INSTANCE}
        self._interner = interner
        self._bases: dict[Source, CounterBases] = {}

    def forget(self, source: Source) -> None:
        """Decode the next slice of a source partition as its first, after a seek or a change of its owner."""
        self._bases.pop(source, None)

    def close(self, source: Source, watermark: float, now: float) -> int | None:
        """Record that the seconds before `watermark` are closed; `now` is the clock, infinite in a replay.

        Returns the offset from which a reader must start to count later snapshots the same, None if any will do.
        """
        bases = self._bases.get(source)
        return bases.close(watermark, now) if bases is not None else None

    def decode(self, slice: Slice) -> SampleBatch:
        """Decode a slice. It never raises: bad records are in `rejects`, one entry a record."""
        table = self._interner.table()
        rejects = Rejects()
        stamps = _stamps(slice)
        parts = [
            self._counters(slice, first, stop, stamps, table, rejects)
            if form == "counters"
            else self._run(form, first, slice.values[first:stop], stamps, table, rejects)
            for form, first, stop in self._runs(slice)
        ]
        columns, clamped = _clamp(cleaned(joined(parts), table, rejects.faults), stamps)
        rule = self._sources.get(slice.source.topic)
        if rule is not None:
            columns = replace(columns, instance=rule.numbered(columns.instance, slice.source, table))
        return SampleBatch(
            source=slice.source,
            offsets=np.array(slice.offsets, dtype=np.int64),
            columns=columns,
            table=table,
            rejects=rejects.entries(slice.source, slice.offsets) if rejects else [],
            clamped=clamped,
            faults=rejects.faults.entries() if rejects.faults else [],
            unread=rejects.unread,
        )

    def _runs(self, slice: Slice) -> Iterator[tuple[Format, int, int]]:
        """Format, first index and index after the last of each run of records of one format."""
        usual = self._formats[slice.source.topic]
        size = len(slice.values)
        if not slice.content_types:
            if size:
                yield usual, 0, size
            return
        formats = [usual] * size
        for index, header in slice.content_types.items():
            named = CONTENT_TYPES.get(header.partition(b";")[0].strip().lower(), usual)
            # A snapshot is JSON too; decoded as a sample it would be one request.
            formats[index] = usual if (usual, named) == ("counters", "json") else named
        for form, run in groupby(range(size), formats.__getitem__):
            indices = list(run)
            yield form, indices[0], indices[-1] + 1

    def _run(
        self,
        form: Format,
        first: int,
        values: Sequence[bytes | None],
        stamps: Float,
        table: Table,
        rejects: Rejects,
    ) -> Columns:
        if form == "columnar":
            return decode_columnar(first, values, stamps, self._interner, table, rejects)
        run = JsonRun(first, values, stamps, rejects)
        if form == "json":
            run.objects()
        elif form == "json-array":
            run.arrays()
        else:
            run.lines()
        return run.columns(self._interner, table)

    def _counters(self, slice: Slice, first: int, stop: int, stamps: Float, table: Table, rejects: Rejects) -> Columns:
        bases = self._bases.setdefault(slice.source, CounterBases())
        return bases.run(range(first, stop), slice.values, slice.offsets, stamps, table, rejects)


def _stamps(slice: Slice) -> Float:
    """Times of the records in Unix seconds, infinite for a record without a valid one."""
    timestamps = np.array(slice.timestamps, dtype=np.int64)
    return np.where((timestamps >= MIN_TIME * 1000) & (timestamps <= MAX_TIME * 1000), timestamps / 1000, np.inf)


def _clamp(columns: Columns, stamps: Float) -> tuple[Columns, int]:
    """Set the time of samples ahead of their record to the record's; returns how many there were."""
    record = stamps[columns.record]
    ahead = columns.ts > record + MAX_AHEAD
    clamped = int(np.count_nonzero(ahead))
    return (replace(columns, ts=np.where(ahead, record, columns.ts)), clamped) if clamped else (columns, 0)
