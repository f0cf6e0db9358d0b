"""Evaluates recorded telemetry without a broker, with the same decoders, reduction, windows and triggers.

Each recording is a source partition. Time is the samples' own: nothing depends on the clock, on how many records are
read at once, or on how a recording is spread over partitions, as long as samples are no further out of order than the
allowed lateness.
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
class _Tape:
    """A recording that is being read; `mark` is its watermark."""

    source: Source
    records: Iterator[bytes]
    reducer: Reducer
    offset: int = 0
    mark: float = -math.inf
    ended: bool = False


@dataclass(slots=True)
class Tally:
    """What a replay has read: records, what was rejected by kind, and the first reasons.

    `counts` has the sums of every scope, a column each of detectors.cells.COUNTS. `faults` are what was wrong with
    samples that count all the same, `unread` how many values could not be read, by scope and the measure of
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
            place = cells.scopes[cells.scope[cells.measure_cell[i]]], cells.measures[cells.measure_id[i]]
            self.unread[place] += int(cells.measure_count[i])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """How recordings are read and evaluated; `source` says what counts as one source (streams.decoders.sources)."""

    format: Format
    source: str = INSTANCE
    max_scopes: int
    max_lateness: float
    evaluate_every: int


class Replay:
    """One pass over recordings, each an iterable of undecoded records; `names` name the recordings in reasons."""

    def __init__(
        self,
        recordings: Sequence[Iterable[bytes]],
        specs: Sequence[TriggerSpec],
        settings: ReplaySettings,
        *,
        batch: int = BATCH,
        names: Sequence[str] = (),
        habits: Sequence[DriftTarget] = (),
    ) -> None:
        interner = Interner(watch_list(specs, habits), settings.max_scopes)
        self._decoder = Decoder({TOPIC: settings.format}, interner, {TOPIC: settings.source})
        self._tapes = [
            _Tape(Source(TOPIC, p), iter(records), Reducer(Source(TOPIC, p), interner, settings.max_lateness))
            for p, records in enumerate(recordings)
        ]
        self._max_lateness = settings.max_lateness
        self._names = [*names, *(str(place) for place in range(len(names), len(recordings)))]
        self._batch = batch
        self.tally = Tally()
        self.shard = Shard(
            0,
            specs,
            [TOPIC],
            ShardSettings(
                max_scopes=settings.max_scopes, evaluate_every=settings.evaluate_every, catching_up_after=math.inf
            ),
            drift_targets=habits,
        )

    def seconds(self, progress: Callable[[int], None] = lambda records: None) -> Iterator[EvaluatedSecond]:
        """Yield every evaluated second in order; `progress` is told how many records have been read."""
        while reading := [tape for tape in self._tapes if not tape.ended]:
            # The one furthest behind is read next, so that the others' seconds need not be kept.
            tape = min(reading, key=lambda tape: (tape.mark, tape.source))
            yield from self._read(tape)
            progress(self.tally.records)
            least = min((tape.mark for tape in self._tapes if not tape.ended), default=None)
            if least is not None and least > -math.inf:
                for ended in self._tapes:
                    if ended.ended:
                        mark = max(ended.mark, least)
                        yield from self._say(ended, ended.reducer.close(mark), mark)
        last = [tape.reducer.last for tape in self._tapes if tape.reducer.last is not None]
        if last:
            end = math.floor(max(last)) + 1
            for tape in self._tapes:
                yield from self._say(tape, tape.reducer.close(end), end)

    def silent(self) -> list[str]:
        """The names of the recordings of which nothing has been counted so far."""
        return [self._names[tape.source.partition] for tape in self._tapes if tape.reducer.last is None]

    def _read(self, tape: _Tape) -> Iterator[EvaluatedSecond]:
        values: list[bytes | None] = list(itertools.islice(tape.records, self._batch))
        if not values:
            tape.ended = True
            return
        offsets = list(range(tape.offset, tape.offset + len(values)))
        batch = self._decoder.decode(Slice(tape.source, values, offsets, [-1] * len(values), {}))
        tape.offset += len(values)
        self.tally.records += len(values)
        self.tally.faults.add_all(fault for fault in batch.faults if fault.kind != "rejected")
        for reject in batch.rejects + tape.reducer.add(batch, math.inf):
            self.tally.rejected[reject.kind] += reject.rows
            if len(self.tally.reasons) < 10:
                self.tally.reasons.append(
                    f"{self._names[tape.source.partition]}: record {reject.offset}: {reject.reason}"
                )
        if tape.reducer.newest is not None:
            mark = tape.reducer.newest - self._max_lateness
            self._decoder.close(tape.source, mark, math.inf)
            yield from self._say(tape, tape.reducer.close(mark), mark)

    def _say(self, tape: _Tape, cells: Cells, mark: float) -> Iterator[EvaluatedSecond]:
        """Send what was closed through the partials' wire format into the shard."""
        tape.mark = mark
        self.tally.add(cells)
        told = tape.reducer.take_told()
        yield from self.shard.take(
            encode(
                Partial(
                    version=VERSION,
                    topic=TOPIC,
                    partition=tape.source.partition,
                    partitions=len(self._tapes),
                    owner="replay",
                    sent_at=0.0,
                    watermark=mark,
                    caught_up=False,
                    overflow=told.overflow,
                    scopes=[(*scope,) for scope in cells.scopes],
                    instances=list(cells.instances),
                    measures=list(cells.measures),
                    columns=pack(cells),
                    received=told.received,
                    rejected=told.rejected,
                )
            ),
            None,
        )
