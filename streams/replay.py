"""Evaluates recorded telemetry without a broker, with the same decoders, reduction, windows and triggers.

Each recording is a source partition. Time is the samples' own. The verdicts depend neither on the clock, nor on how
many records are read at once, nor on how a recording is spread over partitions, as long as samples are not further out
of order than the allowed lateness.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from detectors.arrays import Int
from detectors.cells import COUNTS, Cells, Scope
from detectors.conditions.spec import TriggerSpec
from detectors.windows.unreadable import PREFIX
from streams.decoders.decoder import Decoder
from streams.decoders.faults import Faults
from streams.decoders.interner import Interner
from streams.decoders.sources import INSTANCE
from streams.ingest.reducer import Reducer
from streams.monitor.drift_watch import DriftTarget
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from streams.monitor.watch_list import watch_list
from streams.partials.packing import pack
from streams.partials.record import VERSION, Partial, encode
from streams.settings import Format
from streams.slices import Slice, Source

BATCH = 2000
TOPIC = "recording"


@dataclass(slots=True)
class _Recording:
    """A recording that is being read."""

    source: Source
    records: Iterator[bytes]
    reducer: Reducer
    offset: int = 0
    watermark: float = -math.inf
    ended: bool = False


@dataclass(slots=True)
class Tally:
    """What a replay has read: the number of records, the rejected samples by kind, and the first ten reasons.

    `counts` has the sums of every scope, with the columns detectors.cells.COUNTS. `faults` are faults of samples that
    count all the same. `unread` has the number of values that could not be read, by scope and by the measure of
    detectors.windows.unreadable that counts them.
    """

    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    counts: dict[Scope, Int] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    unread: Counter[tuple[Scope, str]] = field(default_factory=Counter)

    def add(self, cells: Cells) -> None:
        sums = np.zeros((len(cells.scopes), len(COUNTS)), dtype=np.int64)
        np.add.at(sums, cells.scope, cells.counts)
        for scope, row in zip(cells.scopes, sums, strict=True):
            if row.any():
                self.counts[scope] = self.counts.get(scope, 0) + row
        of_fields = np.array([name.startswith(PREFIX) for name in cells.measures], dtype=bool)
        for i in np.flatnonzero(of_fields[cells.measure_id]).tolist():
            key = cells.scopes[cells.scope[cells.measure_cell[i]]], cells.measures[cells.measure_id[i]]
            self.unread[key] += int(cells.measure_count[i])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """How recordings are read and evaluated; for `source` see streams.decoders.sources."""

    format: Format
    source: str = INSTANCE
    max_scopes: int
    max_lateness: float
    evaluate_every: int


class Replay:
    """One pass over recordings, each an iterable of undecoded records; `names` are theirs in the reasons of rejects."""

    def __init__(
        self,
        recordings: Sequence[Iterable[bytes]],
        specs: Sequence[TriggerSpec],
        settings: ReplaySettings,
        *,
        batch: int = BATCH,
        names: Sequence[str] = (),
        drift_targets: Sequence[DriftTarget] = (),
    ) -> None:
        interner = Interner(watch_list(specs, drift_targets), settings.max_scopes)
        self._decoder = Decoder({TOPIC: settings.format}, interner, {TOPIC: settings.source})
        self._recordings = [
            _Recording(Source(TOPIC, p), iter(records), Reducer(Source(TOPIC, p), interner, settings.max_lateness))
            for p, records in enumerate(recordings)
        ]
        self._max_lateness = settings.max_lateness
        self._names = [*names, *(str(number) for number in range(len(names), len(recordings)))]
        self._batch = batch
        self.tally = Tally()
        self.shard = Shard(
            0,
            specs,
            [TOPIC],
            ShardSettings(
                max_scopes=settings.max_scopes, evaluate_every=settings.evaluate_every, catching_up_after=math.inf
            ),
            drift_targets=drift_targets,
        )

    def seconds(self, progress: Callable[[int], None] = lambda records: None) -> Iterator[EvaluatedSecond]:
        """Yield every evaluated second in order; `progress` is called with the number of records read so far."""
        while reading := [recording for recording in self._recordings if not recording.ended]:
            # Reading the recording that is furthest behind keeps the number of open seconds of the others small.
            behind = min(reading, key=lambda recording: (recording.watermark, recording.source))
            yield from self._read(behind)
            progress(self.tally.records)
            marks = [recording.watermark for recording in self._recordings if not recording.ended]
            if marks and min(marks) > -math.inf:
                # The watermark of a recording that has ended follows the others, so that it delays no second.
                for ended in self._recordings:
                    if ended.ended:
                        watermark = max(ended.watermark, min(marks))
                        yield from self._feed(ended, ended.reducer.close(watermark), watermark)
        last = [recording.reducer.newest for recording in self._recordings if recording.reducer.newest is not None]
        if last:
            end = math.floor(max(last)) + 1
            for recording in self._recordings:
                yield from self._feed(recording, recording.reducer.close(end), end)

    def silent(self) -> list[str]:
        """The names of the recordings of which nothing has been counted so far."""
        return [self._names[r.source.partition] for r in self._recordings if r.reducer.newest is None]

    def _read(self, recording: _Recording) -> Iterator[EvaluatedSecond]:
        """Decode and count the next batch of a recording, and evaluate the seconds that it closes."""
        values: list[bytes | None] = list(itertools.islice(recording.records, self._batch))
        if not values:
            recording.ended = True
            return
        offsets = list(range(recording.offset, recording.offset + len(values)))
        batch = self._decoder.decode(Slice(recording.source, values, offsets, [-1] * len(values), {}))
        recording.offset += len(values)
        self.tally.records += len(values)
        self.tally.faults.add_all(fault for fault in batch.faults if fault.kind != "rejected")
        for reject in batch.rejects + recording.reducer.add(batch, math.inf):
            self.tally.rejected[reject.kind] += reject.rows
            if len(self.tally.reasons) < 10:
                name = self._names[recording.source.partition]
                self.tally.reasons.append(f"{name}: record {reject.offset}: {reject.reason}")
        if recording.reducer.reached is not None:
            watermark = recording.reducer.reached - self._max_lateness
            self._decoder.close(recording.source, watermark, math.inf)
            yield from self._feed(recording, recording.reducer.close(watermark), watermark)

    def _feed(self, recording: _Recording, cells: Cells, watermark: float) -> Iterator[EvaluatedSecond]:
        """Encode the closed cells as a partial, and give it to the shard."""
        recording.watermark = watermark
        self.tally.add(cells)
        unreported = recording.reducer.take_unreported()
        yield from self.shard.take(
            encode(
                Partial(
                    version=VERSION,
                    topic=TOPIC,
                    partition=recording.source.partition,
                    partitions=len(self._recordings),
                    owner="replay",
                    sent_at=0.0,
                    watermark=watermark,
                    caught_up=False,
                    overflow=unreported.overflow,
                    scopes=[(*scope,) for scope in cells.scopes],
                    instances=list(cells.instances),
                    measures=list(cells.measures),
                    columns=pack(cells),
                    received=unreported.received,
                    rejected=unreported.rejected,
                )
            ),
            None,
        )
