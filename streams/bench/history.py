"""Minutes of partials for a restart to read, made by stage 1 itself in simulated time."""

from __future__ import annotations

from streams.bench.load import PARTIALS_PARTITIONS, TELEMETRY_PARTITIONS
from streams.bench.shop import Shop, TimedRecord
from streams.clock import Clock
from streams.decoders.decoder import Decoder
from streams.decoders.interner import Interner
from streams.ingest.ingest import Ingest, PartialsOutput
from streams.kafka.reading import Answer, Delivery, Position
from streams.monitor.health import encoder, health
from streams.slices import Slice, Source

MAX_LATENESS = 2.0


class _Clock:
    """A simulated clock; `now` is Unix seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def partials(shop: Shop, topic: str, first: int, last: int, *, max_scopes: int) -> dict[int, list[TimedRecord]]:
    """The partials of the seconds from `first` to `last`, which is excluded, by partials partition.

    As in a live worker, every source partition flushes once a second, to every partials partition. All source
    partitions have one owner.
    """
    clock = _Clock(float(first))
    sources = [Source(topic, p) for p in range(TELEMETRY_PARTITIONS)]
    positions = {source: Position(epoch=1) for source in sources}
    interner = Interner(shop.watch_list(), max_scopes)
    written: dict[int, list[TimedRecord]] = {p: [] for p in range(PARTIALS_PARTITIONS)}

    async def send(partition: int, value: bytes) -> None:
        written[partition].append(TimedRecord(value, int(clock.now * 1000)))

    ingest = Ingest(
        PartialsOutput("bench", PARTIALS_PARTITIONS, send),
        positions=positions,
        partitions={topic: TELEMETRY_PARTITIONS},
        decoder=Decoder({topic: "columnar"}, interner),
        interner=interner,
        max_lateness=MAX_LATENESS,
        clock=Clock(clock, clock),
    )
    ingest.assign(dict.fromkeys(sources, 0))
    samples = int(shop.rate / TELEMETRY_PARTITIONS)
    templates = shop.templates(16, samples)
    for offset, second in enumerate(range(first, last)):
        for source in sources:
            record = shop.at(templates[(offset + source.partition) % len(templates)], second, 1.0)
            values = Slice(source, [record.value], [offset], [record.timestamp_ms], {})
            clock.now = second + 1.0
            ingest.take(Delivery(values, offset, offset + 1, 1))
            position = positions[source]
            position.delivered = position.read = offset + 1
            position.answer = Answer(second + 1 + MAX_LATENESS, offset + 1)
        clock.now = second + 1 + MAX_LATENESS
        await ingest.flush()
    return written


def last_health(last: int) -> dict[int, list[TimedRecord]]:
    """The health records of second `last`, one for each partials partition: a monitor that starts continues there."""
    return {
        p: [TimedRecord(encoder.encode(health(last, p, None, [], at=float(last), status="live")), last * 1000)]
        for p in range(PARTIALS_PARTITIONS)
    }
