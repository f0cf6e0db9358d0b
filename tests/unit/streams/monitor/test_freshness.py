"""Only recent evidence is acted upon, by a clock that can be trusted, and no fault that is over."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from functools import partial

import pytest

from streams.clock import Now, instant
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.merge import AHEAD
from streams.monitor.shard import Shard
from streams.partials.decode import decode_all
from tests.unit.streams.monitor.test_shard import BAD, GOOD, T, firing, live, said, second, shard, spec


def take_at(target: Shard, now: float, *records: bytes) -> list[EvaluatedSecond]:
    return take(target, partial(instant, now), *records)


def take(target: Shard, clock: Callable[[], Now], *records: bytes) -> list[EvaluatedSecond]:
    batch, errors = decode_all(records)
    assert not errors
    return list(target.take_all(batch, clock))


def test_a_second_that_grew_old_while_another_was_acted_upon_is_not_acted_upon() -> None:
    target = shard()
    list(live(target, [BAD] * 5))
    clock = [T + 9.0]
    batch, _ = decode_all([said(at + 1.0, second(at, *BAD)) for at in (T + 5, T + 6)])
    taken = target.take_all(batch, lambda: instant(clock[0]))
    assert not next(taken).muted
    # Acting upon the first second took long: a broker was slow.
    clock[0] += 300
    late = next(taken)
    assert late.muted
    assert late.firing == []
    assert late.health is not None
    assert (late.health.status, late.health.at) == ("catching_up", T + 309.0)


def test_of_seconds_that_are_complete_together_only_the_last_is_acted_upon() -> None:
    target = shard()
    list(live(target, [BAD] * 5))
    records = [said(at + 1.0, second(at, *BAD)) for at in range(T + 5, T + 9)]
    seconds = take_at(target, T + 10.0, *records)
    assert [s.muted for s in seconds] == [False] * 4
    assert firing(seconds) == [9]
    assert [s.health.status for s in seconds if s.health] == ["live"] * 4


@pytest.mark.parametrize(("over", "fires"), [(12, False), (8, False), (0, True)])
def test_a_fault_that_was_over_before_the_start_is_not_acted_upon_and_one_that_lasts_is(over: int, fires: bool) -> None:
    target = shard(spec("error_rate > 20% over 10s for 10s"))
    fault, now = 40, T + 40 + over
    found: list[EvaluatedSecond] = []
    # The backlog is read a few seconds at a time; the first records are 14 s old.
    for begin in range(0, fault + over, 4):
        block = [second(T + n, *(BAD if n < fault else GOOD)) for n in range(begin, min(begin + 4, fault + over))]
        clock = max(now + 2.0, T + begin + 18.0)
        record = said(float(block[-1].second[0]) + 1.0, *block, caught_up=begin + 4 >= fault + over)
        found += take_at(target, clock, record)
    acted = [s for s in found if s.firing]
    if not fires:
        assert acted == []
    for n in range(fault + over, fault + over + 8):
        found = take_at(target, T + n + 3.0, said(T + n + 1.0, second(T + n, *(BAD if fires else GOOD))))
        acted += [s for s in found if s.firing]
    assert bool(acted) == fires


def test_while_more_waits_to_be_read_nothing_older_than_five_seconds_is_acted_upon() -> None:
    target = shard()
    list(live(target, [BAD] * 20))
    for lag, status in ((4.9, "live"), (5.1, "catching_up")):
        at = T + 20 if status == "live" else T + 21
        (found,) = take_at(target, at + 1 + lag, said(at + 1.0, second(at, *BAD), caught_up=False))
        assert bool(found.firing) == (status == "live")
        condition = target.condition(instant(at + 1 + lag))
        assert condition.status == status
    assert condition.detail == "the evidence is 5 s old: more waits to be read in requests/0"
    # All is read. The second has the same age, and there is no newer one.
    (found,) = take_at(target, T + 33.0, said(T + 23.0, second(T + 22, *BAD)))
    assert found.firing


def test_a_watermark_of_the_future_is_not_believed_and_is_named_until_one_is() -> None:
    target = shard()
    list(live(target, [GOOD] * 10))
    now = T + 13.0
    assert take_at(target, now, said(now + 600.0, second(T + 10, *BAD))) == []
    condition = target.condition(instant(now))
    assert condition.status == "unknown"
    assert condition.detail.startswith("what ingest says of requests/0 is 600 s ahead of this machine's clock: ")
    # The cells of that record, and later ones, count.
    fired = []
    for at in range(T + 11, T + 20):
        fired += firing(take_at(target, at + 3.0, said(at + 1.0, second(at, *BAD))))
    assert fired[0] == 20
    assert target.condition(instant(T + 22.0)).status == "live"


def test_a_watermark_of_the_future_in_the_log_blinds_nobody_who_reads_it_later() -> None:
    target = shard()
    records = [said(at + 1.0, second(at, *GOOD)) for at in range(T, T + 20)]
    records += [said(T + 20 + 600.0, second(T + 20, *GOOD))]
    records += [said(at + 1.0, second(at, *GOOD)) for at in range(T + 21, T + 60)]
    seconds = take_at(target, T + 62.0, *records)
    assert [s.time for s in seconds] == list(range(T + 1, T + 61))
    assert all(s.health is not None and s.health.counts["requests"] == [10] for s in seconds)


def test_a_watermark_may_be_ahead_by_what_clocks_differ() -> None:
    target = shard()
    found = take_at(target, T + 1.0, said(T + 1.0 + AHEAD, second(T, *GOOD)))
    assert found[-1].time == T + 6
    assert target.condition(instant(T + 1.0)).status == "live"


def test_what_was_judged_by_a_clock_that_was_ahead_is_not_live_when_it_is_right_again() -> None:
    target = shard()
    list(live(target, [GOOD] * 10))
    take_at(target, T + 612.0, said(T + 610.0))
    condition = target.condition(instant(T + 14.0))
    assert (condition.status, "judged 596 s ahead" in condition.detail) == ("unknown", True)


def test_by_a_clock_in_doubt_nothing_is_commanded_and_the_doubt_is_the_reason() -> None:
    target = shard()
    list(live(target, [BAD] * 20))
    doubtful = Now(T + 23.0, T + 23.0, 0.0, "this machine's clock was set 600 s back")
    (found,) = take(target, lambda: doubtful._replace(monotonic=T + 23.0), said(T + 21.0, second(T + 20, *BAD)))
    assert found.firing == []
    assert found.health is not None
    assert (found.health.status, found.health.detail) == ("unknown", doubtful.problem)


def test_silence_is_measured_by_the_monotonic_clock() -> None:
    target = shard()
    seconds = itertools.count(T)
    now = Now(T + 3.0, T + 3.0, 100.0)
    take(target, lambda: now, said(T + 1.0, second(next(seconds), *GOOD)))
    # The wall clock steps; no time has passed.
    assert "has spoken" not in target.condition(Now(T + 600.0, T + 600.0, 101.0)).detail
    # It steps back, and the owner has sent nothing for 11 s.
    condition = target.condition(Now(T + 3.0, T + 3.0, 111.0))
    assert condition == ("unknown", "no ingest has spoken for requests/0 for 10 s")


def waiting(target: Shard, seconds: range) -> None:
    """One of two sources continues, the other no longer has an owner."""
    for at in seconds:
        take_at(target, at + 3.0, said(at + 1.0, second(at, *GOOD), partitions=2))


def test_what_waits_for_a_source_without_an_owner_is_bounded_and_what_is_given_up_is_said_and_unknown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    target = shard(spec("throughput < 5 over 10s for 5s"), room=40_000)
    take_at(target, T + 3.0, said(T + 1.0, second(T, *GOOD), partition=1, partitions=2))
    waiting(target, range(T, T + 400))
    kept = target.merge._ready_bytes
    assert kept <= 40_000
    lost = target.merge.lost_until
    assert lost is not None
    assert T + 200 < lost < T + 400
    condition = target.condition(instant(T + 402.0))
    assert condition.status == "unknown"
    assert "no ingest has spoken for requests/1" in condition.detail
    assert "no longer fits in memory, it stays unknown" in condition.detail
    # The source is back: the seconds that were kept are complete and judged, and none before them.
    seconds = take_at(target, T + 403.0, said(T + 400.0, partition=1, partitions=2))
    assert [s.time for s in seconds] == list(range(lost + 1, T + 401))
    assert all(s.health is not None and s.health.counts["requests"] == [10] for s in seconds)
    # No window spans the gap, in which the lost seconds would look like silence: verdicts are unknown until it is full.
    states = [s.health.triggers[0].state for s in seconds if s.health]
    assert states[:9] == ["unknown"] * 9
    assert set(states[9:]) == {"ok"}
    assert "monitor.seconds-lost" in caplog.text


def test_what_comes_later_of_seconds_that_were_given_up_is_not_taken_for_the_whole() -> None:
    target = shard(room=40_000)
    take_at(target, T + 3.0, said(T + 1.0, second(T, *GOOD), partition=1, partitions=2))
    waiting(target, range(T, T + 400))
    lost = target.merge.lost_until
    assert lost is not None
    late = [second(at, 7, 7) for at in range(T + 1, T + 400)]
    seconds = take_at(target, T + 403.0, said(T + 400.0, *late, partition=1, partitions=2))
    assert [s.time for s in seconds] == list(range(lost + 1, T + 401))
    assert all(s.health is not None and s.health.counts["requests"] == [17] for s in seconds)


def test_seconds_that_were_given_up_are_no_silence_while_the_source_catches_up() -> None:
    target = shard(spec("throughput < 5 over 10s for 5s"), room=40_000)
    for at in range(T, T + 20):
        take_at(target, at + 3.0, *(said(at + 1.0, second(at, *GOOD), partition=p, partitions=2) for p in (0, 1)))
    waiting(target, range(T + 20, T + 400))
    lost = target.merge.lost_until
    assert lost is not None
    seconds = [
        found
        for at in range(T + 20, T + 400)
        for found in take_at(target, T + 403.0, said(at + 1.0, partition=1, partitions=2))
    ]
    assert [s.time for s in seconds] == list(range(lost + 1, T + 401))
    assert {s.health.triggers[0].state for s in seconds if s.health} == {"unknown", "ok"}


def test_open_seconds_are_bounded_too_where_no_watermark_is_believed() -> None:
    target = shard(room=40_000)
    list(live(target, [GOOD] * 3))
    for n in range(1000):
        take_at(target, T + 6.0, said(T + 900.0, second(T + 3 + n % 3, *GOOD)))
    assert len(target.merge._open[1]) < 200
    # Cells that were sent again take no room, so nothing was given up.
    lost = [target.merge.lost_until]
    assert lost == [None]
    for n in range(1000):
        take_at(target, T + 6.0, said(T + 2000.0, second(T + 3 + n, *GOOD)))
    assert target.merge.lost_until is not None
    assert target.condition(instant(T + 6.0)).status == "unknown"


def test_flags_and_what_was_learnt_are_known_after_seconds_were_given_up() -> None:
    target = shard(room=40_000)
    target.flag_changed("production", "new", float(T + 5), None)
    take_at(target, T + 3.0, said(T + 1.0, second(T, *GOOD), partition=1, partitions=2))
    waiting(target, range(T, T + 400))
    take_at(target, T + 403.0, said(T + 400.0, partition=1, partitions=2))
    assert target._windows.evaluator._begin.tolist() == [T + 5]


def test_a_loop_of_shards_asks_the_clock_for_each_second() -> None:
    asked = []

    def clock() -> Now:
        asked.append(1)
        return instant(T + 30.0)

    take(shard(), clock, said(T + 10.0, *(second(T + n, *GOOD) for n in range(10))))
    assert len(asked) == 11
