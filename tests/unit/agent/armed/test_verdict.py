"""ARMED is said only where a flip would happen; each way in which it would not, and all unknown, is NOT ARMED."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.armed.group import of_clocks
from agent.armed.verdict import SHOWN, Arming, arming
from agent.armed.view import View, Wanted
from agent.heartbeats.heartbeat import AWAY_AFTER, Heartbeat, Member, Obstacle, TelemetryCount

NOW = 1_700_000_000.0
FLAG = ("production", "new-cart")
WANTED = Wanted(
    rules="rules",
    managed="managed",
    names=frozenset({"production/new-cart"}),
    shadow=None,
    flags=frozenset({FLAG}),
    telemetry=("requests",),
    partials="flipback.partials",
)


def beat(name: str = "one", **changes: Any) -> Heartbeat:
    """A process of all roles in which all is well."""
    whole = Heartbeat(
        id=name,
        host=name,
        pid=7,
        started_at=NOW - 100,
        at=NOW,
        version="1",
        roles={"ingest": "active", "monitor": "active", "executor": "active"},
        rules="rules",
        managed="managed",
        signs="key",
        accepts=["key"],
        flags=["production/new-cart"],
        reads={"requests": [0, 1], "flipback.partials": [0, 1], "flipback.commands": [0]},
        telemetry=[TelemetryCount(topic="requests", received=1000, rejected=10)],
    )
    return msgspec.structs.replace(whole, **changes)


def standby(name: str = "two", **changes: Any) -> Heartbeat:
    """Another process, which reads nothing."""
    parts = {"ingest": "standby", "monitor": "standby", "executor": "standby"}
    return beat(name, **{"roles": parts, "reads": {}, "telemetry": [], **changes})


def view(*beats: Heartbeat, age: float = 5.0, **changes: Any) -> View:
    """What somebody knows who sees these processes; by default all is known and well."""
    whole = View(
        members=[Member(one, age) for one in beats or (beat(),)],
        partitions={"requests": 2, "flipback.partials": 2},
        ages={FLAG: 20.0},
    )
    return replace(whole, **changes)


def said(wanted: Wanted, seen: View) -> Arming:
    return arming(wanted, seen)


@pytest.mark.parametrize("seen", [view(), view(beat(), standby()), view(own="one", started_at=NOW)])
def test_where_all_is_known_and_well_it_is_armed(seen: View) -> None:
    assert said(WANTED, seen) == Arming(())
    assert list(said(WANTED, seen).lines()) == ["ARMED"]


def test_outcomes_that_no_trigger_asks_for_may_be_missing() -> None:
    counts = [TelemetryCount(topic="requests", received=1000, rejected=0, no_outcome=1000)]
    assert said(replace(WANTED, outcomes=False), view(beat(telemetry=counts))).armed
    assert said(WANTED, view(beat(telemetry=counts))).ready


def test_who_looks_from_outside_has_read_newer_verdicts_than_the_heartbeats_tell_of() -> None:
    told = Obstacle(what="verdicts", why="partials/0: nothing heard yet of requests/0")
    ill = beat(obstacles=[told])
    assert said(WANTED, view(ill)).armed
    read = Obstacle(what="verdicts", why="partials/0: the last verdict is 7 s old")
    assert said(WANTED, view(ill, local=[read])).obstacles == (read,)
    # A process has read no verdicts but its own.
    assert [one.why for one in said(WANTED, view(ill, standby(), own="two")).obstacles] == [f"one (pid 7): {told.why}"]


def test_where_no_executor_is_alive_that_no_flag_is_read_is_no_second_reason() -> None:
    assert [one.what for one in said(WANTED, view(members=[], ages={})).obstacles] == ["process"]
    assert [one.what for one in said(WANTED, view(*PARTED[:2], ages={})).obstacles] == ["executor"]


def ahead(seconds: float) -> View:
    return view(members=[Member(beat(), 0.0, ahead=seconds)])


FOREIGN = standby(rules="others", flags=["production/other"], started_at=NOW - 200)
OLDER = standby(rules="old", started_at=NOW - 200)
NEWER = standby(rules="new", started_at=NOW + 200)
PARTED = [
    beat("i", roles={"ingest": "active"}, signs=None, accepts=[]),
    beat("m", roles={"monitor": "active"}, accepts=[]),
    beat("e", roles={"executor": "active"}, signs=None),
]

CASES: dict[str, tuple[Wanted, View, str, str]] = {
    "mode shadow": (replace(WANTED, shadow="mode: shadow"), view(), "shadow", "nothing is commanded"),
    "heartbeats unread": (WANTED, view(members=None), "heartbeats", "have not been read"),
    "nobody ever": (WANTED, view(members=[]), "process", "no process is alive"),
    "all away": (WANTED, view(age=AWAY_AFTER + 1), "process", "one (pid 7) was last heard 26 s ago, 25 s are allowed"),
    "clock of the only one ahead": (WANTED, ahead(600), "process", "600 s ahead"),
    "own heartbeat lost": (WANTED, view(own="other"), "heartbeats", "do not come back"),
    "no executor": (WANTED, view(*PARTED[:2]), "executor", "no executor is alive"),
    "no monitor": (WANTED, view(PARTED[0], PARTED[2]), "monitor", "no monitor is alive"),
    "no ingest": (WANTED, view(*PARTED[1:]), "ingest", "no ingest is alive"),
    "executors stand by": (WANTED, view(standby(reads=beat().reads)), "executor", "no executor is active"),
    "halted": (WANTED, view(beat(halted="halted by root: no")), "automation", "halted by root"),
    "standby halted": (WANTED, view(beat(), standby(halted="by root")), "automation", "two (pid 7): by root"),
    "key refused": (WANTED, view(beat(signs="mine")), "keys", "signs with key mine"),
    "key refused by a standby": (WANTED, view(beat(), standby(accepts=["x"])), "keys", "two (pid 7, standby)"),
    "two with keys of their own": (
        WANTED,
        view(beat(), standby(signs="k2", accepts=["k2"])),
        "keys",
        "accepted are k2",
    ),
    "key unknown": (WANTED, view(beat(signs=None)), "keys", "None"),
    "other rules, older": (WANTED, view(beat(), OLDER), "configuration", "other triggers"),
    "other rules, newer": (WANTED, view(beat(), NEWER), "configuration", "other triggers"),
    "other flags managed": (WANTED, view(beat(managed="x")), "configuration", "other managed flags"),
    "another team": (WANTED, view(beat(), FOREIGN), "configuration", "no flag in common"),
    "flag file unusable": (
        WANTED,
        view(beat(obstacles=[Obstacle(what="files", why="no such file", do="make it")])),
        "files",
        "one (pid 7): no such file",
    ),
    "own obstacle": (
        WANTED,
        view(own="one", local=[Obstacle(what="files", why="no such file")]),
        "files",
        "no such file",
    ),
    "partials unread": (
        WANTED,
        view(beat(reads={"requests": [0, 1], "flipback.partials": [0]})),
        "flipback.partials",
        "no monitor reads flipback.partials/1",
    ),
    "telemetry unread": (
        WANTED,
        view(beat(reads={"requests": [1], "flipback.partials": [0, 1]})),
        "requests",
        "no ingest reads requests/0",
    ),
    "partitions unknown": (WANTED, view(partitions=None), "topics", "not known"),
    "topic missing": (WANTED, view(partitions={"flipback.partials": 2}), "requests", "no such topic"),
    "telemetry rejected": (
        WANTED,
        view(beat(telemetry=[TelemetryCount(topic="requests", received=1000, rejected=11, reason="ts in ms")])),
        "requests",
        "11 of 1,000 samples of the last minute were rejected: ts in ms",
    ),
    "outcomes missing": (
        WANTED,
        view(beat(telemetry=[TelemetryCount(topic="requests", received=1000, rejected=0, no_outcome=11)])),
        "requests",
        "11 of 1,000 samples of the last minute do not say how the request ended",
    ),
    "no telemetry": (
        WANTED,
        view(beat(telemetry=[TelemetryCount(topic="requests", received=0, rejected=0)])),
        "requests",
        "no sample",
    ),
    "telemetry uncounted": (WANTED, view(beat(telemetry=[])), "requests", "no sample"),
    "flags unread": (WANTED, view(ages=None), "flags", "have not been read"),
    "flag that nobody manages": (WANTED, view(ages={}), "flags", "ever told the state of production/new-cart"),
    "flag that nobody reads any more": (WANTED, view(ages={FLAG: 91.0}), "flags", "no executor has read"),
    "flag read at no known time": (WANTED, view(ages={FLAG: float("nan")}), "flags", "no executor has read"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_keeps_a_flip_from_happening_is_named_with_what_to_do(case: str) -> None:
    wanted, seen, what, why = CASES[case]
    found = said(wanted, seen)
    assert not found.armed
    (named,) = [obstacle for obstacle in found.obstacles if obstacle.what == what][:1]
    assert why in named.why
    assert next(found.lines()).startswith("NOT ARMED: ")


WELL: dict[str, Callable[[Heartbeat], Heartbeat]] = {
    "rules": lambda one: msgspec.structs.replace(one, rules=""),
    "managed": lambda one: msgspec.structs.replace(one, managed=""),
    "signs": lambda one: msgspec.structs.replace(one, signs=None),
    "accepts": lambda one: msgspec.structs.replace(one, accepts=[]),
    "reads": lambda one: msgspec.structs.replace(one, reads={}),
    "roles": lambda one: msgspec.structs.replace(one, roles={}),
    "telemetry": lambda one: msgspec.structs.replace(one, telemetry=[]),
}


@given(st.sets(st.sampled_from(sorted(WELL)), min_size=1))
def test_a_heartbeat_that_leaves_something_out_arms_nothing(missing: set[str]) -> None:
    one = beat()
    for name in missing:
        one = WELL[name](one)
    assert not said(WANTED, view(one)).armed


@given(st.sets(st.sampled_from(["members", "partitions", "ages"]), min_size=1))
def test_what_is_not_known_arms_nothing(missing: set[str]) -> None:
    unknown: dict[str, Any] = dict.fromkeys(missing)
    assert not said(WANTED, replace(view(), **unknown)).armed


_parts = st.sampled_from(["active", "standby", "starting"])
_beats = st.builds(
    beat,
    st.sampled_from(["one", "two", "three"]),
    roles=st.dictionaries(st.sampled_from(["ingest", "monitor", "executor"]), _parts),
    rules=st.sampled_from(["rules", "other"]),
    signs=st.sampled_from([None, "key", "k2"]),
    accepts=st.lists(st.sampled_from(["key", "k2"]), max_size=2),
    halted=st.sampled_from([None, "by root"]),
    reads=st.fixed_dictionaries(
        {
            "requests": st.lists(st.integers(0, 1), max_size=2),
            "flipback.partials": st.lists(st.integers(0, 1), max_size=2),
        }
    ),
)


@given(st.lists(st.tuples(_beats, st.floats(0, 60)), max_size=3))
def test_armed_says_that_an_active_executor_obeys_every_monitor_and_nothing_is_unread(
    seen: list[tuple[Heartbeat, float]],
) -> None:
    members = [Member(one, age) for one, age in seen]
    if not said(WANTED, view(members=members)).armed:
        return
    living = [member.beat for member in members if member.age <= AWAY_AFTER]
    executors = [one for one in living if "executor" in one.roles]
    monitors = [one for one in living if "monitor" in one.roles]
    assert any(one.roles["executor"] == "active" for one in executors)
    assert monitors
    assert all(one.signs in other.accepts for one in monitors for other in executors)
    assert all(one.halted is None for one in executors)
    assert all(one.rules == "rules" for one in living)
    for topic in ("requests", "flipback.partials"):
        assert {0, 1} <= {p for one in living for p in one.reads[topic]}


@pytest.mark.parametrize(
    ("case", "ready"),
    [
        ("mode shadow", True),
        ("no telemetry", True),
        ("no executor", False),
        ("halted", False),
        ("two with keys of their own", False),
        ("telemetry rejected", False),
        ("flag that nobody manages", False),
    ],
)
def test_a_process_is_ready_where_all_is_well_but_for_what_is_meant_so(case: str, ready: bool) -> None:
    wanted, seen, *_ = CASES[case]
    assert said(wanted, seen).ready is ready


@pytest.mark.parametrize(("other", "ready"), [(OLDER, True), (NEWER, False), (FOREIGN, False)])
def test_an_update_does_not_wait_for_the_processes_that_wait_for_it(other: Heartbeat, ready: bool) -> None:
    new_flag = ("production", "newer")
    wanted = replace(WANTED, flags=WANTED.flags | {new_flag})
    seen = view(beat(), other, own="one", started_at=beat().started_at)
    assert said(wanted, seen).ready is ready


def test_however_many_reasons_there_are_a_person_reads_twenty_lines() -> None:
    many = [Obstacle(what=f"flag-{i}", why="w" * 5000) for i in range(300)]
    lines = list(said(WANTED, view(local=many)).lines())
    assert len(lines) == SHOWN + 1
    assert lines[-1].endswith(f"and {300 - SHOWN} more")
    assert max(map(len, lines)) < 1200


@pytest.mark.parametrize(
    ("ahead", "refused"), [(3600.0, "3600 s ahead of"), (59.0, ""), (-4.0, ""), (-30.0, "30 s behind")]
)
def test_an_executor_whose_clock_makes_it_refuse_commands_is_not_armed(ahead: float, refused: str) -> None:
    monitor = beat("m", roles={"ingest": "active", "monitor": "active"})
    executor = beat("e", roles={"executor": "active"})
    found = said(WANTED, view(members=[Member(monitor, 1.0, clock=50.0), Member(executor, 1.0, clock=50.0 + ahead)]))
    assert found.armed is (not refused)
    assert [refused in str(one) for one in found.obstacles] == ([True] if refused else [])


def test_what_an_executor_says_of_its_clock_is_for_those_who_cannot_measure_it() -> None:
    told = Obstacle(what="clocks", why="the clock of the executor e is 3600 s ahead of that of the monitor m")
    seen = view(beat("m"), beat("e", obstacles=[told]))
    assert not said(WANTED, seen).armed
    assert said(WANTED, replace(seen, own="m", started_at=NOW)).armed


def test_an_executor_speaks_of_its_own_clock_alone() -> None:
    members = [Member(beat(name), 1.0, clock=clock) for name, clock in (("a", 0.0), ("b", 300.0))]
    assert ["executor b" in one.why for one in of_clocks(members, 60.0, "b")] == [True]
    assert [("executor a" in one.why, "behind" in one.why) for one in of_clocks(members, 60.0, "a")] == [(True, True)]


def test_a_telemetry_topic_that_is_not_there_is_named_with_those_that_are_like_it() -> None:
    seen = view(partitions={"flipback.partials": 2, "request": 0})
    (obstacle,) = (one for one in said(WANTED, seen).obstacles if one.what == "requests")
    assert obstacle.why.startswith("there is no such topic; there are ")
    assert "request" in obstacle.why.partition("there are ")[2]
    assert "read within about 10 s" in obstacle.do
    # To create it would make the slip real.
    assert "topics create" not in obstacle.do
