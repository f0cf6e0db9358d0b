"""Stage 1: slices of source partitions in, partials out, and the offsets that may be committed.

A source partition's watermark follows the samples while records wait to be read, and the clock once a fetch
answer has shown that none do; see docs/state-and-delivery.md, Watermarks. What is closed by it is sent to the partials
partitions, and only when all of that is acknowledged may offsets be committed, up to the oldest record of a second
still open.
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
"""Seconds after which a source's owner speaks even if its watermark stands still; monitors wait 10 s for it."""


@dataclass(slots=True)
class _Owned:
    """A source partition this process reads. `processed` is the reading position up to which it was reduced.

    `sent_at` is in monotonic seconds. What comes while `caught_up` was appended just now. `pending` is the
    broker's answer whose end is to be reached next.
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

    `partitions` tells how many partitions a telemetry topic has. `clock` decides nothing but how far a caught-up
    partition's watermark may go, and which samples are too far ahead to be counted.
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
        """Begin anew with the given source partitions; every assignment starts from what was committed."""
        self._owned = {source: self._begin(source) for source in sources}

    def resized(self, topic: str, partitions: int) -> None:
        """A telemetry topic has another number of partitions: monitors are to hear of each of them."""
        self._partitions[topic] = partitions

    def revoke(self) -> None:
        """Forget all source partitions: after this nothing is sent or committed for them."""
        for source in self._owned:
            self._decoder.forget(source)
        self._owned = {}

    def _begin(self, source: Source) -> _Owned:
        position = self._positions[source]
        self._decoder.forget(source)
        return _Owned(Reducer(source, self._interner, self._max_lateness), position.epoch, position.start)

    def take(self, delivery: Delivery) -> list[Reject]:
        """Reduce one slice; returns what was rejected of it."""
        source = delivery.slice.source
        position, owned = self._positions.get(source), self._owned.get(source)
        # Left over from before a seek: the records will come again, or belong to somebody else now.
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
        """The offset from which a reader must start to recount all that is not yet acknowledged."""
        owned = self._owned.get(source)
        return owned.committable if owned else None

    def owned(self) -> set[Source]:
        """The source partitions that are worked on."""
        return set(self._owned)

    async def flush(self) -> None:
        """Send what the watermarks have closed since the last call; returns when all of it is acknowledged."""
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
                # What may be committed once this is acknowledged must be read now: more slices arrive meanwhile.
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
        # At 100 records a second the newest answer nearly always brings records that are not reduced yet. What had been
        # appended when an earlier one was given may all be.
        pending = owned.pending
        reached = pending if pending is not None and owned.processed >= pending.highwater else None
        if caught_up:
            reached = answer
        if reached is not None or pending is None:
            owned.pending = answer
        if reached is not None:
            mark: float | None = now.at(reached.at) - self._max_lateness
        else:
            newest = owned.reducer.newest
            mark = None if newest is None else min(newest, now.time) - self._max_lateness
        return max((at for at in (mark, owned.watermark) if at is not None), default=None), caught_up

    async def _flush_source(
        self, source: Source, owned: _Owned, cells: Cells | None, committable: int | None, now: float
    ) -> None:
        parts: dict[int, list[Cells]] = {}
        if cells is not None:
            for partition, part in split(cells, self._output.partitions):
                parts.setdefault(partition, []).append(part)
        told = owned.reducer.take_told()
        head = Partial(
            version=VERSION,
            topic=source.topic,
            partition=source.partition,
            partitions=self._partitions[source.topic],
            owner=self._output.owner,
            sent_at=now,
            watermark=None,
            caught_up=owned.caught_up,
            overflow=told.overflow,
            scopes=[],
            instances=[],
            measures=[],
            columns=[],
            received=told.received,
            rejected=told.rejected,
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
        """Send a partition its parts; what is told once goes with the last, when the others are acknowledged."""
        first = msgspec.structs.replace(head, overflow=0, received=0, rejected=0)
        for part in parts[:-1]:
            await self._output.send(partition, encode(_with_cells(first, part, None)))
        await self._output.send(partition, encode(_with_cells(head, parts[-1] if parts else None, watermark)))


def _counted(kind: Int) -> tuple[int, int]:
    """The samples that are no rejected ones, and those that do not say how they ended."""
    # Nearly always all say it, and that is one look.
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
