"""What partials report besides cells, which slices ingest takes, and which record times it passes on."""

from __future__ import annotations

import json

import pytest

from streams.clock import Clock
from streams.ingest.ingest import HEARTBEAT
from streams.kafka.reading import Answer, Delivery
from streams.partials.record import VERSION, Partial
from streams.slices import Slice
from tests.unit.streams.ingest.test_ingest import LATENESS, OTHER, SOURCE, Bench, CounterLog, Log, T, merged


async def flushed(bench: Bench, at: float) -> list[Partial]:
    """The partials that a flush sends at `at`, when all records have been read."""
    sent = len(bench.sent)
    bench.now = at
    bench.answer(at, highwater=bench.position.read)
    await bench.ingest.flush()
    return bench.partials()[sent:]


class Junk(Log):
    """Every third record cannot be read."""

    def value(self, offset: int) -> bytes:
        return b"junk" if offset % 3 == 2 else super().value(offset)


async def test_a_partial_says_of_whom_it_is() -> None:
    bench = Bench(Log([T + 0.5]), partitions=2)
    bench.read(1)
    for said in await flushed(bench, T + 60.0):
        assert (said.version, said.topic, said.partition, said.partitions) == (VERSION, "requests", 0, 1)
        assert (said.owner, said.sent_at, said.caught_up, said.watermark) == ("a", T + 60.0, True, T + 58.0)


async def test_a_topic_that_grew_is_to_be_heard_of_with_all_its_partitions() -> None:
    bench = Bench(Log([]))
    bench.ingest.resized("requests", 3)
    assert [said.partitions for said in await flushed(bench, T)] == [3, 3]


async def test_what_was_received_rejected_or_without_room_is_told_once_to_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # There is a place for one scope besides the watched one, so two of three services have none.
    monkeypatch.setattr("streams.partials.partitions.MAX_CELLS", 2)
    bench = Bench(Junk([T + n for n in range(9)]), max_scopes=2)
    bench.read(9)
    reports: dict[int, list[tuple[int, int, int]]] = {0: [], 1: []}
    for at in (T + 60, T + 61):
        sent = len(bench.sent)
        said = await flushed(bench, at)
        for (partition, _), partial in zip(bench.sent[sent:], said, strict=True):
            reports[partition].append((partial.received, partial.rejected, partial.overflow))
    # The counts are in the last part of the first flush, and in no other.
    everything = (9, 3, reports[0][-2][2])
    for own in reports.values():
        assert [counts for counts in own if any(counts)] == [everything]
        assert own[-2:] == [everything, (0, 0, 0)]
    assert everything[2] > 0
    assert max(len(own) for own in reports.values()) > 2


async def test_a_watermark_that_moves_within_a_second_closes_none_and_is_not_sent() -> None:
    bench = Bench(Log([]), partitions=1)
    sent = [len(await flushed(bench, T + quarter / 8)) for quarter in range(9)]
    assert sent == [1, 0, 0, 0, 0, 0, 0, 0, 1]
    bench = Bench(Log([]), partitions=1)
    assert len(await flushed(bench, T + 0.75)) == 1
    # A second has ended in between.
    assert [said.watermark for said in await flushed(bench, T + 1.25)] == [T + 1.25 - LATENESS]


async def test_what_waits_for_a_seek_keeps_no_other_partition_from_being_sent() -> None:
    bench = Bench(Log([T + 0.5]), partitions=1)
    bench.ingest.assign({SOURCE: 0, OTHER: 0})
    assert bench.ingest.owned() == {SOURCE, OTHER}
    bench.position.epoch = 2
    bench.other.answer = Answer(T, 0)
    assert [said.partition for said in await flushed(bench, T)] == [1]
    bench.ingest.revoke()
    assert bench.ingest.owned() == set()


async def test_after_a_seek_the_first_slice_begins_anew_also_where_nothing_was_assigned() -> None:
    log = CounterLog([T + 0.1 * n for n in range(9)], services=("cart",))
    bench = Bench(log, partitions=1)
    bench.read(9)
    bench.position.start = bench.position.delivered = bench.position.read = 3
    bench.position.epoch = 2
    # Snapshots from before the seek are no base for those after it: another process may have written in between.
    bench.read(9)
    await flushed(bench, T + 60.0)
    found, _ = merged(bench.sent, 1)
    assert sum(requests for requests, _ in found.values()) == 5
    assert bench.ingest.committable(SOURCE) == 8


async def test_what_was_taken_away_leaves_nothing_of_it_behind() -> None:
    bench = Bench(CounterLog([T, T + 1.0, T + 2.0]), partitions=1)
    bench.read(3)
    assert bench.decoder.close(SOURCE, T, T) is not None
    bench.ingest.revoke()
    assert bench.decoder.close(SOURCE, T, T) is None


async def test_of_counters_the_last_snapshot_that_was_counted_is_read_again() -> None:
    bench = Bench(CounterLog([T + n for n in range(6)]), partitions=1)
    bench.read(6)
    await flushed(bench, T + 60.0)
    # Offsets 3, 4 and 5 have the newest snapshots of three processes.
    assert bench.ingest.committable(SOURCE) == 3


async def test_who_was_not_assigned_is_not_counted() -> None:
    bench = Bench(Log([T + 0.5]))
    bench.ingest = bench.unassigned()
    assert bench.ingest.owned() == set()
    assert await flushed(bench, T) == []
    bench.ingest.assign({SOURCE: 0})
    delivery = bench.log.delivery(0, 1)
    for source in (OTHER, SOURCE._replace(topic="elsewhere")):
        delivery.slice = Slice(source, delivery.slice.values, [0], delivery.slice.timestamps, {})
        assert bench.ingest.take(delivery) == []
    assert bench.ingest.counts.recent() == {}
    assert bench.ingest.committable(OTHER) is None


async def test_a_slice_that_comes_again_is_counted_once_for_people_too() -> None:
    bench = Bench(Log([T, T]))
    bench.read(2)
    assert bench.ingest.take(bench.log.delivery(0, 2)) == []
    assert bench.ingest.counts.recent()["requests"].received == 2


class Vague(Log):
    """The first three requests have no outcome; two of them have a cache result."""

    def value(self, offset: int) -> bytes:
        every: list[dict[str, object]] = [{}, {"cache": "hit"}, {"cache": "miss"}, {"status": 200}]
        said = every[min(offset, 3)]
        return json.dumps({"ts": self.times[offset], "service": "cart", **said}).encode()


class Lookups(CounterLog):
    """Totals of requests that succeed, each with two cache lookups, of which one is a hit."""

    def value(self, offset: int) -> bytes:
        n = offset + 1
        counters = {"requests": n, "errors": 0, "cache_hits": n, "cache_lookups": 2 * n}
        return json.dumps({"ts": self.times[offset], "service": "cart", "counters": counters}).encode()


async def test_people_hear_how_many_samples_came_how_many_were_rejected_and_why() -> None:
    bench = Bench(Log([T, T + 100.0, T + 200.0, T + 300.0]), now=T)
    rejects = bench.ingest.take(bench.log.delivery(0, 4))
    assert [(reject.source, reject.offset) for reject in rejects] == [(SOURCE, 1), (SOURCE, 2), (SOURCE, 3)]
    found = bench.ingest.counts.recent()["requests"]
    assert (found.received, found.rejected, found.reason) == (4, 3, rejects[-1].reason)
    (telemetry,) = bench.ingest.counts.telemetry()
    (fault,) = telemetry.faults
    assert (fault.kind, fault.field, fault.samples) == ("rejected", "ts", 3)
    assert "ahead of the clock" in fault.said
    assert fault.example == rejects[0].reason
    assert len({reject.reason for reject in rejects}) == 3


@pytest.mark.parametrize(("log", "without"), [(Vague, 3), (Lookups, 0)])
async def test_people_hear_how_many_requests_do_not_say_how_they_ended(log: type[Log], without: int) -> None:
    bench = Bench(log([T + n for n in range(6)]), now=T + 9)
    bench.read(6)
    found = bench.ingest.counts.recent()["requests"]
    assert (found.rejected, found.no_outcome) == (0, without)
    assert found.received >= 6


async def test_records_are_witnesses_of_the_time_only_where_they_were_appended_just_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[float] = []
    monkeypatch.setattr(Clock, "recorded", lambda self, at: heard.append(at))
    bench = Bench(Log([T + n for n in range(20)]))
    bench.read(5)
    assert heard == [], "more may wait to be read"
    await flushed(bench, T + 5.0)
    bench.read(9)
    assert heard == [T + 7.0], "the one in the middle"
    bench.read(10)
    assert heard == [T + 7.0, T + 9.0]
    # Batches without records, and records without a time.
    take(bench, [])
    for stamp in (-1, 0):
        take(bench, [stamp])
    take(bench, [-1, -1])
    assert heard == [T + 7.0, T + 9.0]
    bench.now = T + 9.0 + HEARTBEAT
    bench.answer(bench.now, highwater=20)
    await bench.ingest.flush()
    bench.read(15)
    assert heard == [T + 7.0, T + 9.0], "behind again"


def take(bench: Bench, stamps: list[int]) -> None:
    """Deliver records with these Kafka timestamps; without timestamps, a batch without records."""
    first = bench.position.delivered
    stop = first + max(len(stamps), 1)
    offsets = list(range(first, first + len(stamps)))
    bench.position.delivered = bench.position.read = stop
    values: list[bytes | None] = [bench.log.value(offset) for offset in offsets]
    bench.ingest.take(Delivery(Slice(SOURCE, values, offsets, stamps, {}), first, stop, bench.position.epoch))
