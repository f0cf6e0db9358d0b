"""A shard on partials made by hand: which seconds are judged when, and when no command may follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cell_operations import empty, join
from detectors.cells import Cells, Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec, longest_lookback
from streams.clock import instant
from streams.condition import ShardCondition
from streams.errors import PartialError
from streams.monitor.announcements import Announcements
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.freshness import SILENT_AFTER
from streams.monitor.observer import Exposure
from streams.monitor.resume_point import ResumePoint
from streams.monitor.room import MOST_BYTES
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from streams.partials.packing import pack
from streams.partials.record import VERSION, Partial, encode
from tests.support.cells import Cell, cells

T = 1_700_000_000
SERVICE = Scope("production", "shop")
ON = Scope("production", "shop", "new", "on")
MUTED_AFTER = 15.0


def spec(when: str, *, name: str = "errors", grace: int = 0) -> TriggerSpec:
    return TriggerSpec(
        name=name,
        flag="new",
        environment="production",
        service="shop",
        condition=parse(when),
        safe_variant="off",
        min_samples=5,
        unknown_grace=grace,
        control_variant="off",
    )


ERRORS = spec("error_rate > 20% over 10s for 5s")


def shard(
    *specs: TriggerSpec,
    every: int = 1,
    published: int | None = None,
    from_start: bool = True,
    topics: str = "requests",
    room: int = MOST_BYTES,
) -> Shard:
    return Shard(
        0,
        specs or [ERRORS],
        topics.split(),
        ShardSettings(max_scopes=50, evaluate_every=every, catching_up_after=MUTED_AFTER, most_bytes=room),
        ResumePoint(published=published, from_start=from_start),
    )


def second(at: int, requests: int, errors: int, instance: str = "i-1") -> Cells:
    counts = {"requests": requests, "errors": errors}
    return cells(at, (SERVICE, Cell(counts, instances={instance: counts})))


def said(
    watermark: float | None,
    *seconds: Cells,
    partition: int = 0,
    partitions: int = 1,
    topic: str = "requests",
    caught_up: bool = True,
) -> bytes:
    """The partial with which the owner of a partition sends these seconds."""
    block = join(list(seconds)) if seconds else empty()
    return encode(
        Partial(
            version=VERSION,
            topic=topic,
            partition=partition,
            partitions=partitions,
            owner="a",
            sent_at=0.0,
            watermark=watermark,
            caught_up=caught_up,
            overflow=0,
            scopes=[(*scope,) for scope in block.scopes],
            instances=list(block.instances),
            measures=list(block.measures),
            columns=pack(block),
        )
    )


def live(target: Shard, counts: Sequence[tuple[int, int]], begin: int = T) -> Iterator[EvaluatedSecond]:
    """Feed one second after the other, each 2 s after its end, as in live traffic."""
    for at, (requests, errors) in enumerate(counts, begin):
        yield from target.take(said(at + 1.0, second(at, requests, errors)), at + 3.0)


GOOD, BAD = (10, 0), (10, 5)


def firing(seconds: Sequence[EvaluatedSecond]) -> list[int]:
    return [s.time - T for s in seconds if s.firing]


def changes(seconds: Sequence[EvaluatedSecond]) -> list[tuple[int, str, str]]:
    return [(c.t - T, c.from_.name, c.to.name) for s in seconds for _, c in s.transitions]


def test_a_breach_fires_when_it_has_held_and_its_evidence_is_handed_over_every_second() -> None:
    target = shard()
    seconds = list(live(target, [GOOD] * 12 + [BAD] * 14 + [GOOD] * 12))
    assert [s.time - T for s in seconds] == list(range(1, 39))
    # 25 errors of 100 in the window that ends at 17 are more than a fifth; the condition is held for 5 s from there.
    assert changes(seconds) == [
        (1, "UNKNOWN", "OK"),
        (17, "OK", "PENDING"),
        (22, "PENDING", "FIRING"),
        (32, "FIRING", "OK"),
    ]
    assert firing(seconds) == list(range(22, 32))
    (evidence,) = seconds[21].firing
    assert (evidence.t, evidence.window, evidence.counts["errors"]) == (T + 22, (T + 12.0, T + 22.0), 50)
    assert evidence.obstacle is None
    assert evidence.age == 2.0


def test_of_a_flag_that_is_safe_no_evidence_is_put_together_until_it_is_so_no_more() -> None:
    target = shard()
    found = list(live(target, [GOOD] * 12 + [BAD] * 12))
    target.flag_changed("production", "new", T + 24.0, None, safe=True)
    found += live(target, [BAD] * 3, T + 24)
    target.flag_changed("production", "new", T + 27.0, None, safe=False)
    found += live(target, [BAD] * 3, T + 27)
    assert firing(found) == [22, 23, 24, 28, 29, 30]
    # The state of the trigger has not changed.
    assert changes(found)[-1] == (22, "PENDING", "FIRING")


def test_a_flag_is_ill_when_a_condition_is_true_or_half_of_the_evidence_that_alarms_is_there() -> None:
    ill = frozenset({("production", "new")})
    seconds = list(live(shard(), [GOOD] * 12 + [BAD] * 8))
    assert [s.time - T for s in seconds if s.ill] == [17, 18, 19, 20]
    # A minute without errors, and then a second in which 12 of 24 requests fail: 10.7 of 14.8 nats.
    fast = replace(spec("error_rate > 2% over 60s for 2m"), fast=True)
    seconds = list(live(shard(fast), [(24, 0)] * 60 + [(24, 12)]))
    assert (seconds[-1].ill, seconds[-1].firing) == (ill, [])
    assert not any(second.ill for second in seconds[:-1])


def test_evidence_tells_who_gets_the_variants_of_the_flag() -> None:
    target = shard()
    bad, half = Cell({"requests": 10, "errors": 5}), Cell({"requests": 5})
    *_, last = (
        found
        for at in range(T, T + 20)
        for found in target.take(said(at + 1.0, cells(at, (SERVICE, bad), (ON, half))), at + 3.0)
    )
    (evidence,) = last.firing
    assert evidence.exposure is not None
    assert evidence.exposure() == Exposure(others=5.0, variants=5.0, requests=10.0)


def test_health_holds_the_second_and_what_every_trigger_says() -> None:
    target = shard(ERRORS, spec("error_rate > 90% over 10s", name="gross"))
    *_, last = live(target, [BAD] * 10)
    assert last.health is not None
    assert (last.health.time, last.health.scopes) == (T + 10, [(*SERVICE,)])
    assert (last.health.counts["requests"], last.health.counts["errors"]) == ([10], [5])
    assert last.health.sources == [1]
    assert {t.trigger: t.state for t in last.health.triggers} == {"errors": "firing", "gross": "ok"}


def test_seconds_that_are_old_when_they_come_are_judged_and_command_nothing() -> None:
    target = shard()
    backlog = [second(T + at, 10, 10) for at in range(60)]
    seconds = list(target.take(said(T + 60.0, *backlog), T + 1000.0))
    assert len(seconds) == 60
    assert all(s.muted and not s.firing for s in seconds)
    assert seconds[-1].health is not None
    assert seconds[-1].health.status == "catching_up"
    assert [trigger.state for trigger in seconds[-1].health.triggers] == ["firing"]


def test_the_old_seconds_of_a_backlog_that_ends_in_the_present_are_not_live() -> None:
    target = shard()
    backlog = [second(T + at, 10, 10) for at in range(60)]
    seconds = list(target.take(said(T + 60.0, *backlog), T + 62.0))
    # The last second is complete too, so only it is acted upon; the older ones are in the health records only.
    assert [s.muted for s in seconds] == [s.time < T + 57 for s in seconds]
    statuses = [s.health.status for s in seconds if s.health]
    assert statuses == ["catching_up" if s.muted else "live" for s in seconds]
    assert firing(seconds) == [60]


@pytest.mark.parametrize(("errors", "fires"), [(0, []), (10, [61, 62, 63])])
def test_a_trigger_that_fired_on_old_seconds_is_followed_only_if_what_is_fresh_breaches_too(
    errors: int, fires: list[int]
) -> None:
    target = shard(spec("error_rate > 20% over 60s for 5s"))
    backlog = [second(T + at, 10, 10) for at in range(20)]
    list(target.take(said(T + 20.0, *backlog), T + 60.0))
    # The window still has the old errors when live traffic begins, so the trigger keeps firing.
    seconds = list(live(target, [(10, errors)] * 3, begin=T + 60))
    assert target.verdicts is not None
    assert target.verdicts.firing() == [0]
    assert firing(seconds) == fires


def test_a_second_waits_for_every_source_partition() -> None:
    target = shard()
    now = T + 10.0
    assert list(target.take(said(T + 5.0, second(T, 10, 0), partitions=2), now)) == []
    assert target.condition(instant(now)) == ShardCondition("unknown", "nothing heard yet of requests/1")
    seconds = list(target.take(said(T + 1.5, second(T, 10, 5), partition=1, partitions=2), now))
    assert [s.time for s in seconds] == [T + 1]
    assert seconds[0].health is not None
    assert seconds[0].health.counts["requests"] == [20]
    assert target.condition(instant(now)).status == "live"


def test_a_topic_that_nobody_speaks_of_keeps_all_unknown() -> None:
    target = shard(topics="requests other")
    assert list(target.take(said(T + 5.0, second(T, 10, 0)), T + 6.0)) == []
    assert target.condition(instant(T + 6.0)).status == "unknown"
    assert "other" in target.condition(instant(T + 6.0)).detail


def test_a_partition_whose_owner_is_silent_makes_all_unknown_and_says_which() -> None:
    target = shard()
    for partition in range(2):
        list(target.take(said(T + 5.0, partition=partition, partitions=2), T + 7.0))
    list(target.take(said(T + 16.0, partition=0, partitions=2), T + 18.0))
    assert target.condition(instant(T + 7.0 + SILENT_AFTER)).status == "live"
    condition = target.condition(instant(T + 7.1 + SILENT_AFTER))
    assert condition.status == "unknown"
    assert "requests/1" in condition.detail
    assert "requests/0" not in condition.detail


def test_a_partition_that_lags_is_waited_for_and_nothing_counts_as_healthy_meanwhile() -> None:
    target = shard()
    for partition in range(2):
        list(target.take(said(T + 1.0, second(T, 10, 0), partition=partition, partitions=2), T + 3.0))
    for at in range(1, 15):
        heard = target.take(said(T + at + 1.0, second(T + at, 10, 0), partition=0, partitions=2), T + at + 3.0)
        assert list(heard) == []
        # The other owner is alive, but its watermark does not move.
        assert list(target.take(said(T + 1.0, partition=1, partitions=2), T + at + 3.0)) == []
    now = T + 1.0 + MUTED_AFTER
    assert target.condition(instant(now)).status == "live"
    condition = target.condition(instant(now + 0.1))
    assert condition.status == "catching_up"
    assert "requests/1" in condition.detail
    frame = target.unknown_health(instant(now + 0.1))
    assert (frame.status, frame.time, frame.scopes) == ("catching_up", T + 1, [])
    assert [(trigger.state, trigger.value) for trigger in frame.triggers] == [("unknown", None)]


def test_a_service_without_traffic_is_unknown_not_well() -> None:
    target = shard()
    seconds = [s for at in range(12) for s in target.take(said(T + at + 1.0), T + at + 3.0)]
    assert seconds
    assert {trigger.state for s in seconds if s.health for trigger in s.health.triggers} == {"unknown"}


def test_evaluations_lie_on_whole_multiples_whenever_the_watermark_comes() -> None:
    target = shard(every=5)
    seconds = [
        *target.take(said(T + 3.7, *(second(T + at, 10, 0) for at in range(3))), T + 6.0),
        *target.take(said(T + 12.2, *(second(T + at, 10, 0) for at in range(3, 12))), T + 14.0),
    ]
    assert [s.time for s in seconds] == [T + 5, T + 10]
    assert T % 5 == 0


def test_what_was_published_before_is_replayed_in_silence_and_still_acted_upon_while_fresh() -> None:
    log = [GOOD] * 12 + [BAD] * 12
    target = shard(published=T + 23)
    seconds = list(live(target, log))
    assert [s.time - T for s in seconds if s.health] == [24]
    assert changes(seconds) == []
    # The process that ended may have sent no command.
    assert firing(seconds) == [22, 23, 24]


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.sampled_from([GOOD, BAD, (10, 2), (3, 3), (0, 0)]), min_size=40, max_size=70),
    st.integers(0, 10),
)
def test_who_takes_over_judges_as_if_it_had_been_there_all_along(log: list[tuple[int, int]], ahead: int) -> None:
    records = [said(at + 1.0, *([second(at, *counts)] if counts[0] else [])) for at, counts in enumerate(log, T)]

    def judged(target: Shard, begin: int) -> list[tuple[int, str, float | None, int]]:
        return [
            (s.time, trigger.state, trigger.value, trigger.samples)
            for at, record in enumerate(records[begin:], T + begin)
            for s in target.take(record, at + 3.0)
            if s.health
            for trigger in s.health.triggers
        ]

    before = judged(shard(), 0)
    published = T + 30
    begin = 30 - longest_lookback([ERRORS]) - ahead
    after = judged(shard(published=published, from_start=False), begin)
    assert after == [row for row in before if row[0] > published]


def test_a_second_of_which_reading_began_in_the_middle_is_not_judged() -> None:
    target = shard(from_start=False)
    # The cells of the other source for T + 1 are in a record before the first one that is read.
    turns = [(0, T + 1), (1, T + 2), (0, T + 2), (1, T + 3), (0, T + 3)]
    seconds = [
        s
        for partition, at in turns
        for s in target.take(said(at + 1.0, second(at, 10, 0), partition=partition, partitions=2), at + 3.0)
    ]
    assert [(s.time, s.health and s.health.counts["requests"]) for s in seconds] == [(T + 4, [20])]


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(12)))
def test_the_order_in_which_sources_speak_changes_nothing(order: list[int]) -> None:
    def judged(turns: Sequence[int]) -> list[tuple[int, str, float | None, int]]:
        target, taken = shard(), [0, 0, 0]
        found = []
        for turn in turns:
            partition = turn % 3
            at = T + 5 * taken[partition]
            taken[partition] += 1
            block = [second(at + n, 10, 5 if at + n > T + 6 else 0) for n in range(5)]
            for s in target.take(said(at + 5.0, *block, partition=partition, partitions=3), at + 7.0):
                assert s.health is not None
                found += [(s.time, t.state, t.value, t.samples) for t in s.health.triggers]
        return found

    assert judged(order) == judged(range(12))


def test_a_record_that_is_no_partial_is_refused_and_changes_nothing() -> None:
    target = shard()
    list(live(target, [GOOD] * 3))
    for raw in (b"", b"nonsense", said(T + 50.0)[:-3]):
        with pytest.raises(PartialError):
            list(target.take(raw, T + 10.0))
    assert target.time == T + 3
    assert [s.time for s in live(target, [GOOD], begin=T + 3)] == [T + 4]


def test_a_sample_of_long_ago_at_the_start_of_the_log_is_not_gone_through_second_by_second() -> None:
    target = shard()
    ancient = T - 20 * 365 * 86_400
    seconds = target.take(said(T + 1.0, second(ancient, 1, 0), second(T, 10, 0)), T + 3.0)
    first = next(seconds)
    assert first.time > T - 2 * 3600
    *_, last = seconds
    assert last.health is not None
    assert (last.time, last.health.counts["requests"]) == (T + 1, [10])


def test_an_hour_without_telemetry_is_judged_second_by_second() -> None:
    target = shard()
    list(live(target, [GOOD]))
    after = T + 3600
    seconds = list(target.take(said(after + 1.0, second(after, 10, 0)), after + 3.0))
    assert [s.time for s in seconds] == list(range(T + 2, after + 2))


def test_an_inability_is_announced_once_when_it_has_lasted_and_once_when_it_is_over() -> None:
    announcements = Announcements()
    live_, lost = ShardCondition("live", ""), ShardCondition("unknown", "nothing heard")
    announced = [announcements.observe(0, lost if 5 <= at < 40 else live_, at) for at in range(60)]
    assert [(at, what) for at, what in enumerate(announced) if what] == [(20, "begun"), (40, "ended")]


def test_an_inability_that_passes_is_not_announced_and_partitions_do_not_mix() -> None:
    announcements = Announcements()
    live_, lost = ShardCondition("live", ""), ShardCondition("catching_up", "behind")
    for at in range(40):
        assert announcements.observe(0, lost if at % 10 else live_, at) is None
        assert announcements.observe(1, lost, at) == ("begun" if at == 15 else None)
    announcements.forget(1)
    assert announcements.observe(1, live_, 41.0) is None
