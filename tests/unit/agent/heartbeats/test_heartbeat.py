"""Heartbeats: who is alive, and that nothing in the topic can make a dead process look alive or hurt a reader."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.heartbeats.heartbeat import (
    AWAY_AFTER,
    EVERY,
    MAX_AHEAD,
    MAX_OBSTACLES,
    MAX_TEXT,
    Heartbeat,
    Members,
    Obstacle,
    TelemetryCount,
    alive,
    changed,
    decode,
    encode,
)
from agent.heartbeats.sender import LOOK_EVERY

NOW = 1_700_000_000.0


class Clocks:
    """The wall clock and the monotonic one of the reader."""

    def __init__(self) -> None:
        self.wall = NOW
        self.run = 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.run += seconds

    def members(self, *, caught_up: bool = True) -> Members:
        members = Members(now=lambda: self.wall, monotonic=lambda: self.run)
        members.caught_up = caught_up
        return members


def beat(name: str = "a", at: float = NOW) -> Heartbeat:
    return Heartbeat(
        id=name,
        host="host",
        pid=1,
        started_at=at,
        at=at,
        version="1",
        roles={"executor": "active"},
        rules="r",
        managed="m",
    )


def take(members: Members, beat: Heartbeat) -> None:
    members.take(beat.id.encode(), encode(beat))


def living(members: Members) -> list[str]:
    return [member.beat.id for member in alive(members.all())]


def test_one_heartbeat_that_could_not_be_written_makes_no_process_look_away() -> None:
    clocks = Clocks()
    members = clocks.members()
    take(members, beat())
    # It was given up when the next was due, which came late by what a loaded machine takes.
    clocks.pass_by(2 * EVERY + LOOK_EVERY + 3)
    assert living(members) == ["a"]
    assert [member.quiet for member in members.all()] == [True]
    take(members, beat())
    clocks.pass_by(EVERY + LOOK_EVERY)
    assert [member.quiet for member in members.all()] == [False]


def test_a_process_is_away_when_it_has_not_been_heard_of_for_25_s() -> None:
    clocks = Clocks()
    members = clocks.members()
    take(members, beat())
    clocks.pass_by(AWAY_AFTER)
    assert living(members) == ["a"]
    clocks.pass_by(0.1)
    assert living(members) == []
    assert [member.beat.id for member in members.all()] == ["a"]
    take(members, beat())
    assert living(members) == ["a"]


def test_one_that_takes_its_leave_is_forgotten_at_once() -> None:
    members = Clocks().members()
    take(members, beat())
    members.take(b"a", None)
    assert members.all() == []


@pytest.mark.parametrize("skew", [-3600.0, -40.0, 0.0, 3600.0])
def test_once_all_is_read_the_clock_of_another_machine_changes_nothing(skew: float) -> None:
    clocks = Clocks()
    members = clocks.members()
    take(members, beat(at=NOW + skew))
    assert living(members) == ["a"]
    clocks.pass_by(AWAY_AFTER + 1)
    assert living(members) == []


def test_a_step_of_the_own_wall_clock_changes_nothing() -> None:
    clocks = Clocks()
    members = clocks.members()
    take(members, beat())
    clocks.wall += 86400
    assert living(members) == ["a"]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (NOW - AWAY_AFTER + 1, ["a"]),
        (NOW - AWAY_AFTER - 1, []),
        (NOW + MAX_AHEAD - 1, ["a"]),
        (NOW + MAX_AHEAD + 1, []),
        (NOW + 1e9, []),
    ],
)
def test_what_was_there_before_counts_by_its_own_time_and_not_from_the_future(at: float, expected: list[str]) -> None:
    members = Clocks().members(caught_up=False)
    take(members, beat(at=at))
    assert living(members) == expected


@given(st.binary(max_size=300))
def test_arbitrary_bytes_make_nobody_alive(value: bytes) -> None:
    members = Clocks().members()
    members.take(b"x", value)
    assert living(members) == []
    assert members.unreadable == 1


def test_what_is_too_large_is_no_heartbeat() -> None:
    long = msgspec.structs.replace(beat(), reads={"t" * 300_000: [1]})
    assert decode(encode(long)) is None


def test_whatever_the_obstacles_say_the_record_stays_small_and_readable() -> None:
    many = [Obstacle(what="w" * 10_000, why="é" * 10_000, do="d" * 10_000)] * 1000
    value = encode(msgspec.structs.replace(beat(), obstacles=many, halted="h" * 10_000))
    read = decode(value)
    assert read is not None
    assert len(read.obstacles) == MAX_OBSTACLES
    assert {len(text) for one in read.obstacles for text in (one.what, one.why, one.do)} == {MAX_TEXT}
    assert len(value) < 100_000


def test_fields_of_a_later_version_are_passed_over() -> None:
    value = msgspec.json.decode(encode(beat()))
    assert decode(msgspec.json.encode(value | {"mood": "good"})) == beat()


def test_only_news_are_published_before_their_time() -> None:
    first = beat()
    count = TelemetryCount(topic="requests", received=5, rejected=0)
    assert changed(None, first)
    assert not changed(first, msgspec.structs.replace(first, at=NOW + 1, telemetry=[count]))
    assert changed(first, msgspec.structs.replace(first, at=NOW + 1, roles={"executor": "standby"}))


def test_how_far_a_clock_is_off_is_measured_by_the_quickest_of_three_heartbeats() -> None:
    clocks = Clocks()
    members = clocks.members()
    for late in (4.0, 0.2, 9.0):
        assert members.all() == [] or members.all()[0].clock is None
        members.take(b"a", encode(beat(at=clocks.wall + 3600.0 - late)))
        clocks.pass_by(10)
    (member,) = members.all()
    assert member.clock == pytest.approx(clocks.wall - clocks.run + 3599.8)
    # The reader's own clock has no part in it.
    clocks.wall += 500.0
    assert members.all()[0].clock == member.clock
