"""Where reading begins; after two concurrent seeks it follows the newest assignment, whichever seek ends last."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.kafka import driver as transport
from streams.kafka.fetcher import SliceFetcher
from streams.kafka.reading import Position, Reading
from streams.kafka.seek import Begin, Skip, starts
from streams.slices import Source

NOW = 1_700_000_000.0
REQUESTS = [TP("requests", p) for p in range(8)]


@dataclass
class Log:
    """A consumer of a fake broker. Each partition has `end` records, one a second, the first at time `begins`."""

    assigned: set[TP] = field(default_factory=set)
    commits: dict[TP, int] = field(default_factory=dict)
    begins: float = NOW - 1000
    end: int = 1000
    sought: list[tuple[TP, int]] = field(default_factory=list)

    def assignment(self) -> frozenset[TP]:
        return frozenset(self.assigned)

    async def committed(self, tp: TP) -> int | None:
        return self.commits.get(tp)

    async def offsets_for_times(self, past: Mapping[TP, int]) -> dict[TP, Any]:
        await asyncio.sleep(0)
        offsets = {tp: max(0, round(ms / 1000 - self.begins)) for tp, ms in past.items()}
        return {tp: SimpleNamespace(offset=at) if at < self.end else None for tp, at in offsets.items()}

    async def end_offsets(self, tps: list[TP]) -> dict[TP, int]:
        return dict.fromkeys(tps, self.end)

    def seek(self, tp: TP, offset: int) -> None:
        assert tp in self.assigned
        self.sought.append((tp, offset))


def begin(lookback: float = 300.0) -> Begin:
    return Begin({"requests": lookback, "commands": 60.0}, frozenset({"requests"}), frozenset(), None)


async def begun(log: Log, lost: Mapping[Source, int] | None = None, tp: TP = REQUESTS[0]) -> tuple[int, list[Skip]]:
    offsets, skips = await starts(log, [tp], begin(), lost or {}, NOW)
    return offsets[tp], skips


async def test_what_was_committed_is_gone_on_with() -> None:
    assert await begun(Log(commits={REQUESTS[0]: 990})) == (990, [])


async def test_a_new_deployment_begins_in_the_recent_past() -> None:
    assert await begun(Log()) == (700, [])


class Filling(Log):
    """A partition that is empty at the first request and has 1,000 records at the second."""

    async def offsets_for_times(self, past: Mapping[TP, int]) -> dict[TP, Any]:
        found = await super().offsets_for_times(past)
        self.end = 1000
        return found

    async def end_offsets(self, tps: list[TP]) -> dict[TP, int]:
        ends = await super().end_offsets(tps)
        self.end = 1000
        return ends


async def test_what_is_written_to_an_empty_partition_while_its_beginning_is_looked_for_is_read() -> None:
    partials = TP("partials", 0)
    replayed = Begin({}, frozenset(), frozenset({"partials"}), _nowhere)
    offsets, _ = await starts(Filling(end=0), [partials], replayed, {}, NOW)
    assert offsets[partials] == 0


async def _nowhere(sources: list[Source]) -> Mapping[Source, float | None]:
    return dict.fromkeys(sources)


async def test_after_an_outage_of_days_what_is_older_than_the_lookback_is_not_read_and_is_logged() -> None:
    offset, (skip,) = await begun(Log(commits={REQUESTS[0]: 100}))
    assert offset == 700
    assert not skip.lost
    assert "600 records of requests/0 were written more than 300 s ago" in str(skip)


async def test_a_topic_whose_stamps_have_nothing_to_do_with_the_time_is_read_from_where_it_was_committed() -> None:
    assert await begun(Log(commits={REQUESTS[0]: 100}, begins=0.0)) == (100, [])


async def test_commands_are_read_from_where_they_were_committed_whatever_their_age() -> None:
    commands = TP("commands", 0)
    assert await begun(Log(commits={commands: 100}), tp=commands) == (100, [])


async def test_a_position_that_the_broker_refused_is_begun_in_the_recent_past_and_not_where_it_was_committed() -> None:
    offset, (skip,) = await begun(Log(commits={REQUESTS[0]: 100_000}), lost={Source(*REQUESTS[0]): 100_000})
    assert offset == 700
    assert skip.lost
    assert "requests/0 has no offset 100000" in str(skip)


async def test_a_refused_position_in_a_topic_without_a_young_record_is_begun_at_its_end() -> None:
    offset, (skip,) = await begun(Log(begins=NOW - 10_000), lost={Source(*REQUESTS[0]): 100_000})
    assert (offset, skip.begins) == (1000, 1000)


def thread(log: Log, reading: Reading) -> Any:
    made: Any = transport._ConsumerThread.__new__(transport._ConsumerThread)
    made._consumer = log
    made.consumer = SimpleNamespace(app=SimpleNamespace(reading=reading))
    return made


@pytest.mark.parametrize(("older", "newer"), [(8, 4), (4, 8)])
async def test_of_two_seeks_of_which_the_older_one_ends_last_the_assignment_decides(older: int, newer: int) -> None:
    """Seen on Kafka: a monitor was assigned 8 partitions and 8 ms later 4 of them, and then did not read two of
    these."""
    log = Log(set(REQUESTS[:older]))
    slow = asyncio.Event()
    calls: list[int] = []

    async def since(sources: list[Source]) -> dict[Source, float | None]:
        calls.append(len(sources))
        if len(calls) == 1:
            await slow.wait()
        return dict.fromkeys(sources, NOW - 10)

    told: list[set[Source]] = []

    async def on_start(offsets: Mapping[Source, int]) -> None:
        told.append(set(offsets))

    reading = Reading(frozenset({"requests"}), replayed=frozenset({"requests"}), since=since, on_start=on_start)
    worker = thread(log, reading)
    consumer: Any = transport.Consumer.__new__(transport.Consumer)
    consumer.app = SimpleNamespace(reading=reading)
    consumer.assignment = lambda: set(log.assigned)
    consumer._thread = SimpleNamespace(seek_to_committed=worker._seek_to_start)

    first = asyncio.create_task(consumer.seek_to_committed())
    while not calls:
        await asyncio.sleep(0)
    log.assigned = set(REQUESTS[:newer])
    second = asyncio.create_task(consumer.seek_to_committed())
    for _ in range(20):
        await asyncio.sleep(0)
    slow.set()
    await asyncio.gather(first, second)
    assert {len(sources) for sources in told[-1:]} == {newer}
    assert {tp for tp, _ in log.sought[-newer:]} == log.assigned


async def test_seeks_in_the_consumers_thread_follow_each_other_though_the_first_was_given_up() -> None:
    log = Log(set(REQUESTS[:4]))
    slow = asyncio.Event()
    calls: list[int] = []

    async def since(sources: list[Source]) -> dict[Source, float | None]:
        calls.append(len(sources))
        if len(calls) == 1:
            await slow.wait()
        return dict.fromkeys(sources, NOW - 10)

    reading = Reading(frozenset({"requests"}), replayed=frozenset({"requests"}), since=since)
    worker = thread(log, reading)
    first = asyncio.create_task(worker._seek_to_start())
    while not calls:
        await asyncio.sleep(0)
    log.assigned = set(REQUESTS)
    second = asyncio.create_task(worker._seek_to_start())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not second.done()
    slow.set()
    assert len(await first) == len(await second) == 8


async def test_partitions_that_came_while_the_app_was_told_are_begun_too() -> None:
    log = Log(set(REQUESTS[:4]))
    told: list[int] = []

    async def on_start(offsets: Mapping[Source, int]) -> None:
        told.append(len(offsets))
        log.assigned = set(REQUESTS)

    reading = Reading(frozenset({"requests"}), lookback={"requests": 300.0}, on_start=on_start)
    consumer: Any = transport.Consumer.__new__(transport.Consumer)
    consumer.app = SimpleNamespace(reading=reading)
    consumer.assignment = lambda: set(log.assigned)
    consumer._thread = SimpleNamespace(seek_to_committed=thread(log, reading)._seek_to_start)
    assert len(await consumer.seek_to_committed()) == 8
    assert told == [4, 8]


class _State:
    awaiting_reset = True


async def test_a_refused_position_is_left_to_the_consumer_and_not_taken_to_the_beginning() -> None:
    reading = Reading(frozenset({"requests"}), lookback={"requests": 300.0})
    asked: list[bool] = []
    reading.on_lost = lambda: asked.append(True)
    reading.positions[Source(*REQUESTS[0])] = Position(read=100_000, epoch=1)
    fetcher: SliceFetcher = SliceFetcher.__new__(SliceFetcher)
    fetcher.reading = reading
    fetcher._retry_backoff = 0.0
    assignment = SimpleNamespace(state_value=lambda tp: _State())
    assert not await fetcher._update_fetch_positions(assignment, 1, [REQUESTS[0]])
    assert reading.lost == {Source(*REQUESTS[0]): 100_000}
    assert asked

    log = Log({REQUESTS[0]}, commits={REQUESTS[0]: 100_000})
    await thread(log, reading)._seek_to_start()
    assert log.sought == [(REQUESTS[0], 1000)], "NOW is long ago, so the end is where the present begins"
    assert not reading.lost
    assert [skip.was for skip in reading.skipped] == [100_000]
    position = reading.positions[Source(*REQUESTS[0])]
    assert (position.start, position.read, position.delivered, position.epoch) == (1000, 1000, 1000, 2)
