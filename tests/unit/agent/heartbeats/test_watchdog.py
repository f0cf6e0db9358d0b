"""What is announced of the others: soon, once, by one process, and its end too."""

from __future__ import annotations

import msgspec
import pytest

from agent.armed.group import of_group
from agent.heartbeats.heartbeat import AWAY_AFTER, Heartbeat, Members, Obstacle, encode
from agent.heartbeats.watchdog import News, Watchdog, first_of
from tests.unit.agent.armed.test_verdict import WANTED, beat, view
from tests.unit.agent.heartbeats.test_heartbeat import Clocks

PROMISED = 30.0
"""Seconds within which an inability to act is announced (docs/promises.md, P3)."""

MONITOR = beat("a", roles={"ingest": "active", "monitor": "active"}, accepts=[])
SECOND = beat("b", roles={"ingest": "active", "monitor": "active"}, accepts=[])
EXECUTOR = beat("e", roles={"executor": "active"}, signs=None)


class Group:
    """Processes, as one of them sees them second by second."""

    def __init__(self, own: Heartbeat, *others: Heartbeat) -> None:
        self.clocks = Clocks()
        self.members = self.clocks.members()
        self.own = own.id
        self.beating = [own, *others]
        self.watchdog = Watchdog(own.id, self.members)
        self.news: list[tuple[float, News]] = []

    def seconds(self, count: int) -> None:
        for _ in range(count):
            for one in self.beating:
                self.members.take(one.id.encode(), encode(one))
            seen = view(members=self.members.all(), own=self.own)
            found = self.watchdog.look(of_group(WANTED, seen), self.clocks.run)
            self.news += [(self.clocks.run, one) for one in found]
            self.clocks.pass_by(1)

    def told(self) -> list[tuple[str, bool]]:
        return [(news.what, news.begun) for _, news in self.news]


def test_where_all_are_there_nothing_is_announced() -> None:
    group = Group(MONITOR, EXECUTOR)
    group.seconds(120)
    assert group.news == []


def test_an_executor_that_is_killed_is_announced_once_within_30_s_and_its_return_too() -> None:
    group = Group(MONITOR, EXECUTOR)
    group.seconds(10)
    silent = group.clocks.run
    group.beating.remove(EXECUTOR)
    group.seconds(60)
    ((at, news),) = group.news
    assert (news.what, news.begun) == ("executor", True)
    assert "no executor is alive" in news.reason
    assert "start one" in news.reason
    assert AWAY_AFTER <= at - silent <= PROMISED
    # Who comes back may be the first by its id.
    group.beating.append(msgspec.structs.replace(EXECUTOR, id="0"))
    group.seconds(5)
    assert group.told() == [("executor", True), ("executor", False)]


def test_the_end_of_a_process_that_takes_its_leave_is_announced_as_soon() -> None:
    group = Group(MONITOR, EXECUTOR)
    group.seconds(10)
    left = group.clocks.run
    group.beating.remove(EXECUTOR)
    group.members.take(b"e", None)
    group.seconds(20)
    assert group.news == []
    group.seconds(20)
    ((at, _),) = group.news
    assert at - left <= PROMISED


def test_a_restart_within_25_s_is_no_news() -> None:
    group = Group(MONITOR, EXECUTOR)
    group.seconds(10)
    group.beating.remove(EXECUTOR)
    group.members.take(b"e", None)
    group.seconds(15)
    group.beating.append(msgspec.structs.replace(EXECUTOR, id="e2"))
    group.seconds(60)
    assert group.news == []


def test_an_executor_announces_that_the_monitors_are_gone() -> None:
    group = Group(EXECUTOR, MONITOR)
    group.seconds(10)
    group.beating.remove(MONITOR)
    group.seconds(60)
    assert ("monitor", True) in group.told()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (beat("x", signs="k2", accepts=["k2"]), "keys"),
        (msgspec.structs.replace(EXECUTOR, id="x", rules="others", started_at=0.0), "configuration"),
    ],
)
def test_what_does_not_fit_is_announced_within_seconds(other: Heartbeat, what: str) -> None:
    group = Group(MONITOR, EXECUTOR, other)
    group.seconds(6)
    assert (what, True) in group.told()


def test_one_of_the_living_announces_and_the_next_one_when_it_dies() -> None:
    first, second = Group(MONITOR, SECOND), Group(SECOND, MONITOR)
    for group in (first, second):
        group.seconds(40)
    assert first.told() == [("executor", True)]
    assert second.told() == []
    second.beating.remove(MONITOR)
    second.seconds(40)
    assert second.told() == [("executor", True)]


def test_what_was_announced_is_not_over_because_no_heartbeats_are_read() -> None:
    group = Group(MONITOR, EXECUTOR)
    group.seconds(10)
    group.beating.remove(EXECUTOR)
    group.seconds(40)
    # The brokers are away, so that nobody is heard, then the monitor is heard again.
    group.beating.remove(MONITOR)
    group.seconds(60)
    group.beating.append(MONITOR)
    group.seconds(40)
    assert group.told() == [("executor", True)]
    group.beating.append(EXECUTOR)
    group.seconds(5)
    assert group.told() == [("executor", True), ("executor", False)]


def test_who_does_not_see_itself_alive_announces_all_the_same() -> None:
    assert first_of([], "own") == "own"


def test_what_has_passed_before_it_was_announced_has_no_end() -> None:
    watchdog = Watchdog("own", Members())
    obstacle = Obstacle(what="keys", why="the monitor signs with another key")
    assert watchdog.look([obstacle], 0.0) == []
    assert watchdog.look([], 2.0) == []
    assert watchdog.look([obstacle], 4.0) == []
    assert watchdog.look([obstacle], 6.9) == []
    ((what, begun, _),) = watchdog.look([obstacle], 7.0)
    assert (what, begun) == ("keys", True)
