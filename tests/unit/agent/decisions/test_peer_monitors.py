"""Several monitors, each with its own services: an outage over all of them is found, a release's fault is not one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agent.decisions.blame import AT_ONCE_S, Blame, BlameRules, JudgedFlags
from agent.decisions.peer_monitors import BELIEVED_FOR, REPEAT_EVERY, PeerMonitors, watched_services
from agent.decisions.turns import AutomationLimit, FlagKey
from agent.state.incidents import Ill, encode
from agent.state.state_tables import StateTables
from streams.monitor.evidence import FiringEvidence
from tests.unit.agent.decisions.test_blame import status
from tests.unit.agent.decisions.test_commander import T, evidence, spec

SERVICES = ("cart", "search", "checkout")
SPECS = [replace(spec(), flag=f"f{n}", service=service) for n, service in enumerate(SERVICES)]
KEYS: list[FlagKey] = [("production", f"f{n}") for n in range(len(SERVICES))]


class Monitors:
    """One monitor per service; `news` has the records of their shared topic."""

    def __init__(self, *, mute: tuple[int, ...] = ()) -> None:
        self.news: list[Ill] = []
        self.known = [StateTables() for _ in SERVICES]
        self.flags = dict(status(f"f{n}") for n in range(len(SERVICES)))
        self.blames = [self._blame(n, n in mute) for n in range(len(SERVICES))]

    def _blame(self, n: int, mute: bool) -> Blame:
        self.known[n].flags = self.flags
        others = PeerMonitors(
            watched_services(SPECS),
            self.known[n],
            (lambda record: None) if mute else self._publish,
            by=f"process {n}",
            place=lambda: n,
        )
        judged = JudgedFlags({KEYS[n]: [SERVICES[n]]}, math.inf)
        return Blame(lambda: judged, BlameRules(3600, 120, AutomationLimit(9, 600.0)), peers=others)

    def _publish(self, record: Ill) -> None:
        self.news.append(record)
        for known in self.known:
            known.incident(encode(record))

    def evaluate(self, t: int, ill: set[int]) -> dict[int, str | None]:
        """Evaluate every monitor, a moment apart. Return the objection against each ill flag, None if there is none."""
        found: dict[int, str | None] = {}
        for n, blame in enumerate(self.blames):
            now = t + 2.0 + n / 10
            if n not in ill:
                blame.expire(now)
                continue
            alarm = self._alarm(n, t)
            blame.observe([alarm], [], t, now)
            if blame.early(alarm):
                found[n] = "early"
                continue
            objection = blame.objection(alarm, [KEYS[n]], self.known[n], now)
            found[n] = None if objection is None else objection.kind
        return found

    def _alarm(self, n: int, t: int) -> FiringEvidence:
        return evidence(t, of=SPECS[n])


def test_an_outage_that_is_spread_over_three_monitors_turns_no_flag_back() -> None:
    monitors = Monitors()
    assert set(monitors.evaluate(T, {0, 1, 2}).values()) == {"early"}
    for t in range(T + 1, T + 30):
        assert set(monitors.evaluate(t, {0, 1, 2}).values()) == {"outage"}


def test_a_fault_of_one_service_is_acted_upon_at_the_next_evaluation() -> None:
    monitors = Monitors()
    assert monitors.evaluate(T, {1}) == {1: "early"}
    assert monitors.evaluate(T + 1, {1}) == {1: None}


def test_a_monitor_that_says_nothing_is_not_waited_for() -> None:
    monitors = Monitors(mute=(0, 1, 2))
    monitors.evaluate(T, {0, 1, 2})
    assert set(monitors.evaluate(T + 1, {0, 1, 2}).values()) == {None}


def test_what_recovered_elsewhere_does_not_count() -> None:
    monitors = Monitors()
    for t in range(T, T + 5):
        monitors.evaluate(t, {0, 2})
    # Their services are well, and the lists show it a few seconds later.
    for t in range(T + 5, T + 10):
        monitors.evaluate(t, set())
    monitors.evaluate(T + 10, {1})
    assert monitors.evaluate(T + 11, {1}) == {1: None}
    assert AT_ONCE_S < 5


def test_what_a_monitor_that_died_had_said_is_forgotten() -> None:
    monitors = Monitors()
    monitors.evaluate(T, {0, 2})
    later = T + math.ceil(BELIEVED_FOR)
    alarm = monitors._alarm(1, later)
    for t in (later, later + 1):
        monitors.blames[1].observe([monitors._alarm(1, t)], [], t, t + 2.0)
    assert monitors.blames[1].objection(alarm, [KEYS[1]], monitors.known[1], later + 3.0) is None


def test_a_service_that_is_ill_elsewhere_with_its_flag_safe_is_no_part_of_an_outage() -> None:
    monitors = Monitors()
    for n in (0, 2):
        key, safe = status(f"f{n}", safe=True)
        monitors.flags[key] = safe
    monitors.evaluate(T, {0, 1, 2})
    assert monitors.evaluate(T + 1, {0, 1, 2})[1] is None


def test_news_is_published_when_it_changes_and_repeated_while_something_is_ill() -> None:
    monitors = Monitors()
    for t in range(T, T + 20):
        monitors.evaluate(t, {1})
    assert len(monitors.news) == math.ceil(20 / REPEAT_EVERY)
    before = len(monitors.news)
    for t in range(T + 20, T + 60):
        monitors.evaluate(t, set())
    *repeated, last = monitors.news[before:]
    assert len(repeated) <= 1
    assert last.flags == []


@pytest.mark.parametrize("services", [SERVICES, SERVICES[:1]])
def test_a_monitor_that_judges_everything_publishes_nothing(services: tuple[str, ...]) -> None:
    specs = [one for one in SPECS if one.service in services]
    told: list[Ill] = []
    others = PeerMonitors(watched_services(specs), StateTables(), told.append, by="a", place=lambda: 0)
    own = {("production", one.flag): [one.service] for one in specs}
    others.publish_ill(KEYS, own, float(T))
    assert told == []


def test_a_monitors_own_list_is_not_counted_for_others() -> None:
    known = StateTables()
    known.incident(encode(Ill(by="me", place=0, at=float(T), flags=[("production", "f0")])))
    others = PeerMonitors(watched_services(SPECS), known, lambda record: None, by="me", place=lambda: 0)
    assert others.ill(float(T)) == set()


def test_lists_are_replaced_by_place_and_do_not_pile_up() -> None:
    known = StateTables()
    for n in range(100):
        known.incident(encode(Ill(by=f"process {n}", place=n % 4, at=float(n), flags=[])))
    assert sorted(known.ill) == [0, 1, 2, 3]
    assert {one.key for one in known.ill.values()} == {b"ill/0", b"ill/1", b"ill/2", b"ill/3"}
