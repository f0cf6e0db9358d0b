"""Stage 1: slices of source partitions in, partials out, and the offsets that may be committed.

The watermark of a source partition follows the samples while records wait to be read, and the clock once a fetch answer
has shown that none do (docs/state-and-delivery.md#watermarks). The seconds before the watermark are closed and sent to
the partials partitions. Offsets are committed only after all of that is acknowledged, up to the oldest record of a
second that is still open.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from detectors.arrays import Int
from detectors.cells import Cells
from streams.clock import Clock, Now
from streams.decoders.columns import Reject
from streams.decoders.decoder import Decoder
from streams.decoders.faults import Fault
from streams.decoders.interner import Interner
from streams.ingest.reducer import AHEAD, Reducer
from streams.ingest.telemetry_counts import TelemetryCounts
from streams.kafka.reading import Answer, Delivery, Position
from streams.partials.packing import pack
from streams.partials.partitions import split
from streams.partials.record import VERSION, Partial, encode
from streams.slices import Source
from streams.telemetry.sample import HIT_KIND, NO_OUTCOME_KIND, REJECTED_KIND

HEARTBEAT = 1.0
"""Seconds between partials of a source while its watermark stands still; monitors wait 10 s for one."""


@dataclass(slots=True)
class _Owned:
    """A source partition that this process reads. `processed` is the reading position up to which it is reduced.

    `sent_at` is in monotonic seconds. Records that arrive while `caught_up` were appended just now. `pending` is the
    broker's answer whose high watermark is to be reached next.
    """

    reducer: Reducer
    epoch: int
    processed: int
    watermark: float | None = None
    caught_up: bool = False
    pending: Answer | None = None
    sent_at: float = -math.inf
    committable: int | None = None


Send = Callable[[int, bytes], Awaitable[None]]
"""Writes a partial to a partials partition; returns when the broker has acknowledged it, raises if it never will."""


@dataclass(frozen=True, slots=True)
class PartialsOutput:
    """Where partials go: `send` writes one to one of the `partitions` of the partials topic.

    `owner` names this process in each of them.
    """

    owner: str
    partitions: int
    send: Send


class Ingest:
    """Reduces the source partitions of this process.

    `partitions` maps a telemetry topic to its number of partitions. `clock` decides only how far the watermark of a
    caught-up partition may go, and which samples are too far ahead to be counted.
    """

    def __init__(
        self,
        output: PartialsOutput,
        *,
        positions: Mapping[Source, Position],
        partitions: Mapping[str, int],
        decoder: Decoder,
        interner: Interner,
        max_lateness: float,
        clock: Clock,
    ) -> None:
        self._output = output
        self._positions = positions
        self._partitions = dict(partitions)
        self._decoder = decoder
        self._interner = interner
        self._max_lateness = max_lateness
        self._clock = clock
        self.counts = TelemetryCounts()
        self._owned: dict[Source, _Owned] = {}

    def assign(self, sources: Mapping[Source, int]) -> None:
        """Replace the source partitions, each at its committed offset; nothing of the last assignment is kept."""
        self._owned = {source: self._begin(source) for source in sources}

    def resized(self, topic: str, partitions: int) -> None:
        """Set the number of partitions of a telemetry topic; monitors expect a watermark from each of them."""
        self._partitions[topic] = partitions

    def revoke(self) -> None:
        """Drop all source partitions; after this nothing is sent or committed for them."""
        for source in self._owned:
            self._decoder.forget(source)
        self._owned = {}

    def _begin(self, source: Source) -> _Owned:
        position = self._positions[source]
        self._decoder.forget(source)
        return _Owned(Reducer(source, self._interner, self._max_lateness), position.epoch, position.start)

    def take(self, delivery: Delivery) -> list[Reject]:
        """Reduce one slice; returns its rejected records."""
        source = delivery.slice.source
        position, owned = self._positions.get(source), self._owned.get(source)
        # A slice from before a seek: its records will be delivered again, or another process owns the partition.
        if position is None or owned is None or delivery.epoch != position.epoch:
            return []
        if owned.epoch != position.epoch:
            owned = self._owned[source] = self._begin(source)
        if delivery.after <= owned.processed:
            return []
        stamps = delivery.slice.timestamps
        if owned.caught_up and stamps and stamps[-1] > 0:
            self._clock.recorded(stamps[len(stamps) // 2] / 1000)
        batch = self._decoder.decode(delivery.slice)
        ahead = owned.reducer.add(batch, self._clock.now().latest)
        owned.processed = delivery.after
        too_early = sum(reject.rows for reject in ahead)
        counted, no_outcome = _counted(batch.columns.kind)
        counted -= too_early
        faults = batch.faults
        if too_early:
            faults = [*faults, Fault("rejected", AHEAD.field, AHEAD.said, too_early, ahead[0].reason)]
        self.counts.add(delivery.slice, counted, rejects := batch.rejects + ahead, faults, no_outcome)
        return rejects

    def committable(self, source: Source) -> int | None:
        """The offset from which a reader must start to count everything that is not acknowledged."""
        owned = self._owned.get(source)
        return owned.committable if owned else None

    def owned(self) -> set[Source]:
        """The source partitions of this process."""
        return set(self._owned)

    async def flush(self) -> None:
        """Send the seconds that the watermarks have closed since the last call; returns when all are acknowledged."""
        now = self._clock.now()
        flushes = []
        for source, owned in list(self._owned.items()):
            if owned.epoch != self._positions[source].epoch:
                continue
            watermark, owned.caught_up = self._watermark(source, owned, now)
            moved = watermark is not None and (
                owned.watermark is None or math.floor(watermark) > math.floor(owned.watermark)
            )
            if moved or now.monotonic - owned.sent_at >= HEARTBEAT:
                owned.watermark, owned.sent_at = watermark, now.monotonic
                cells = owned.reducer.close(watermark) if watermark is not None else None
                # Read now the offset that may be committed after the acknowledgement: more slices arrive meanwhile.
                committable = self._committable(source, owned, watermark, now.time) if watermark is not None else None
                flushes.append(self._flush_source(source, owned, cells, committable, now.time))
        if flushes:
            await asyncio.gather(*flushes)

    def _committable(self, source: Source, owned: _Owned, watermark: float, now: float) -> int | None:
        counted, needed = owned.reducer.committable, self._decoder.close(source, watermark, now)
        return counted if needed is None or counted is None else min(counted, needed)

    def _watermark(self, source: Source, owned: _Owned, now: Now) -> tuple[float | None, bool]:
        position = self._positions[source]
        answer = position.answer
        caught_up = answer is not None and position.read >= answer.highwater and owned.processed >= position.delivered
        # At 100 records a second the newest answer nearly always contains records that are not reduced yet. All records
        # before the high watermark of an earlier answer may be.
        pending = owned.pending
        reached = pending if pending is not None and owned.processed >= pending.highwater else None
        if caught_up:
            reached = answer
        if reached is not None or pending is None:
            owned.pending = answer
        if reached is not None:
            mark: float | None = now.at(reached.at) - self._max_lateness
        else:
            by_samples = owned.reducer.reached
            mark = None if by_samples is None else min(by_samples, now.time) - self._max_lateness
        return max((at for at in (mark, owned.watermark) if at is not None), default=None), caught_up

    async def _flush_source(
        self, source: Source, owned: _Owned, cells: Cells | None, committable: int | None, now: float
    ) -> None:
        parts: dict[int, list[Cells]] = {}
        if cells is not None:
            for partition, part in split(cells, self._output.partitions):
                parts.setdefault(partition, []).append(part)
        unreported = owned.reducer.take_unreported()
        head = Partial(
            version=VERSION,
            topic=source.topic,
            partition=source.partition,
            partitions=self._partitions[source.topic],
            owner=self._output.owner,
            sent_at=now,
            watermark=None,
            caught_up=owned.caught_up,
            overflow=unreported.overflow,
            scopes=[],
            instances=[],
            measures=[],
            columns=[],
            received=unreported.received,
            rejected=unreported.rejected,
        )
        await asyncio.gather(
            *(
                self._send_parts(partition, head, parts.get(partition, []), owned.watermark)
                for partition in range(self._output.partitions)
            )
        )
        if committable is not None:
            owned.committable = committable

    async def _send_parts(self, partition: int, head: Partial, parts: list[Cells], watermark: float | None) -> None:
        """Send a partition's parts; the last, with watermark and counts, is sent after the others are acknowledged."""
        first = msgspec.structs.replace(head, overflow=0, received=0, rejected=0)
        for part in parts[:-1]:
            await self._output.send(partition, encode(_with_cells(first, part, None)))
        await self._output.send(partition, encode(_with_cells(head, parts[-1] if parts else None, watermark)))


def _counted(kind: Int) -> tuple[int, int]:
    """The number of samples that are not rejected, and of those without an outcome."""
    # Nearly always all samples have an outcome, which one comparison shows.
    if not len(kind) or int(kind.max()) < NO_OUTCOME_KIND:
        return len(kind), 0
    no_outcome = (kind >= NO_OUTCOME_KIND) & (kind < HIT_KIND)
    return int(np.count_nonzero(kind != REJECTED_KIND)), int(np.count_nonzero(no_outcome))


def _with_cells(head: Partial, cells: Cells | None, watermark: float | None) -> Partial:
    fields = {name: getattr(head, name) for name in head.__struct_fields__} | {"watermark": watermark}
    if cells is not None:
        fields |= {
            "scopes": [tuple(scope) for scope in cells.scopes],
            "instances": list(cells.instances),
            "measures": list(cells.measures),
            "columns": pack(cells),
        }
    return Partial(**fields)
