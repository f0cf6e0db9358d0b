"""A verdict of a flag in use that stays unknown is announced once, and so is its end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.decisions.standing import standing_event
from agent.events.severity import level
from agent.events.wording import sentence
from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec
from streams.monitor.standing import Standing, StandingUnknown
from tests.support.cells import Cell
from tests.unit.detectors.triggers.test_evaluator import SERVICE, Bench, counts, spec

Row = tuple[Scope, Cell]
GOOD, BAD = (SERVICE, counts(100)), (SERVICE, counts(100, 30))
LATE = (SERVICE, counts(98, 1, late=2))


class Watched:
    """Triggers of a flag, second by second."""

    def __init__(self, *specs: TriggerSpec, in_use: bool | None = True) -> None:
        self.bench = Bench(*specs)
        self.standing = StandingUnknown(specs)
        self.specs = specs
        if in_use is not None:
            self.standing.flag("production", "new", in_use=in_use)

    def see(self, seconds: int, *rows: Row) -> list[Standing]:
        found: list[Standing] = []
        for _ in range(seconds):
            result = self.bench.see(*rows)
            slots = result.own.slots
            self.standing.update(result, self.bench.store.seen_at(slots))
            found += self.standing.changes(result)
        return found


def rule(when: str = "error_rate > 2% over 10s for 30s", alert: int = 60, name: str = "errors") -> TriggerSpec:
    return replace(spec(when, min_samples=30, grace=30), unknown_alert=alert, name=name)


def test_what_is_never_seen_is_told_once_after_unknown_alert() -> None:
    watched = Watched(rule())
    assert watched.see(60) == []
    (begun,) = watched.see(1)
    assert (begun.begun, begun.triggers, begun.kind, begun.reason) == (True, ["errors"], "silent", "never seen")
    assert watched.see(300) == []


def test_it_ends_when_the_verdict_is_known_again_or_the_flag_is_safe() -> None:
    known, safe = Watched(rule()), Watched(rule())
    known.see(70), safe.see(70)
    assert known.see(30, GOOD) == []
    (ended,) = known.see(1, GOOD)
    assert (ended.begun, ended.reason) == (False, "the verdict is known again")
    safe.standing.flag("production", "new", in_use=False)
    (ended,) = safe.see(1)
    assert (ended.begun, ended.reason) == (False, "the flag is safe")
    assert safe.see(300) == []


def test_a_flag_that_is_safe_or_whose_state_is_not_known_is_nobodys_concern() -> None:
    assert Watched(rule(), in_use=False).see(200) == []
    unheard = Watched(rule(), in_use=None)
    assert unheard.see(200) == []
    # Now the flag is in use; the time before does not count.
    unheard.standing.flag("production", "new", in_use=True)
    assert unheard.see(60) == []
    assert len(unheard.see(1)) == 1


def test_what_was_told_goes_on_while_the_state_of_the_flag_is_not_known() -> None:
    def taken_over() -> Watched:
        watched = Watched(rule(), in_use=None)
        watched.standing.restore({("new", "errors", "production/shop"): (900, True)})
        assert watched.see(100) == []
        return watched

    in_use, safe, known = taken_over(), taken_over(), taken_over()
    in_use.standing.flag("production", "new", in_use=True)
    assert in_use.see(300) == []
    safe.standing.flag("production", "new", in_use=False)
    assert [(one.begun, one.reason) for one in safe.see(1)] == [(False, "the flag is safe")]
    assert [one.reason for one in known.see(40, GOOD)] == ["the verdict is known again"]


def test_an_unknown_that_passes_is_not_told() -> None:
    watched = Watched(rule())
    watched.see(20, GOOD)
    assert [found for _ in range(5) for found in (*watched.see(50), *watched.see(45, GOOD))] == []


@pytest.mark.parametrize("pause", [20, 25, 29])
def test_an_unknown_that_comes_again_before_it_is_trusted_to_be_over_stands_since_its_beginning(pause: int) -> None:
    watched = Watched(rule("error_rate > 2% over 1s", alert=300))
    watched.see(20, GOOD)
    first = watched.bench.second
    told = [one for _ in range(600 // (pause + 5)) for one in (*watched.see(5), *watched.see(pause, GOOD))]
    (begun,) = told
    assert (begun.begun, begun.since) == (True, first + 1)
    assert 300 <= begun.t - begun.since < 300 + pause + 5
    # The end needs a fifth of five minutes, which is one minute.
    assert watched.see(60 - pause, GOOD) == []
    assert [one.begun for one in watched.see(1, GOOD)] == [False]


def test_bursts_of_late_samples_are_told_though_each_passes() -> None:
    watched = Watched(rule("error_rate > 2% over 1s", alert=300))
    watched.see(20, GOOD)
    told = [one for _ in range(10) for one in (*watched.see(5, LATE), *watched.see(20, GOOD))]
    (begun,) = told
    assert (begun.begun, begun.kind) == (True, "missing")


def test_late_samples_are_not_told_at_once_because_something_else_was_unknown_before() -> None:
    watched = Watched(rule("error_rate > 2% over 1s", alert=300))
    watched.see(50)
    assert watched.see(29, LATE) == []


def test_what_ended_in_seconds_of_which_nothing_is_told_is_told_afterwards() -> None:
    watched = Watched(rule())
    assert len(watched.see(70)) == 1
    for _ in range(50):
        result = watched.bench.see(GOOD)
        watched.standing.update(result, watched.bench.store.seen_at(result.own.slots))
        watched.standing.forget(result)
    assert [one.begun for one in watched.see(1, GOOD)] == [False]


def test_late_samples_are_told_after_thirty_seconds_with_who_sends_them() -> None:
    watched = Watched(rule(alert=300))
    watched.see(20, GOOD)
    late = {"pod-1": {"requests": 50}, "pod-7": {"requests": 0, "late": 60}}
    cell = Cell({"requests": 50, "late": 60}, instances=late)
    told = watched.see(45, (SERVICE, cell))
    assert [(one.begun, one.kind) for one in told] == [(True, "missing")]
    assert told[0].reason.endswith("instance pod-7 (100 % late)")
    assert told[0].t - told[0].since == 30


def test_instances_that_stay_left_out_of_a_verdict_that_is_ok_are_told_and_their_return_too() -> None:
    watched = Watched(rule(alert=60))
    late = {"pod-1": {"requests": 60}, "pod-7": {"requests": 0, "late": 40}}
    cell = Cell({"requests": 60, "late": 40}, instances=late)
    assert watched.see(60, (SERVICE, cell)) == []
    (begun,) = watched.see(10, (SERVICE, cell))
    assert (begun.kind, begun.t - begun.since) == ("left_out", 60)
    assert begun.reason == "left out: instance pod-7 (100 % late)"
    assert standing_event(begun).data["reason"].startswith("'errors' unknown in part since ")
    assert sentence(standing_event(begun)).startswith("not all can be judged: ")
    (ended,) = watched.see(45, GOOD)
    assert (ended.begun, ended.reason) == (False, "the verdict is known again")


def test_two_percent_late_are_told_while_nothing_breaches() -> None:
    told = Watched(rule(alert=300)).see(40, LATE)
    assert [(one.begun, one.kind, one.t - one.since) for one in told] == [(True, "missing", 30)]


def test_what_was_about_to_fire_when_its_data_vanished_is_told_at_once() -> None:
    watched = Watched(rule(alert=300))
    watched.see(20, GOOD)
    assert watched.see(14, BAD) == []
    told = watched.see(20)
    assert [(one.begun, one.kind) for one in told] == [(True, "vanished")]
    assert told[0].t - told[0].since <= 11


def test_silence_after_health_is_not_told_at_once() -> None:
    watched = Watched(rule(alert=300))
    watched.see(20, GOOD)
    assert watched.see(100) == []


def test_triggers_of_a_flag_with_the_same_trouble_are_told_together() -> None:
    watched = Watched(rule(name="a"), rule("timeout_rate > 2% over 10s for 30s", name="b"))
    (begun,) = watched.see(61)
    assert begun.triggers == ["a", "b"]


def test_who_takes_over_goes_on_and_does_not_tell_anew() -> None:
    first = Watched(rule())
    first.see(40)
    second = Watched(rule())
    second.bench.second = first.bench.second
    at = int(first.standing.since[0])
    second.standing.restore({("new", "errors", "production/shop"): (at, False)})
    (begun,) = second.see(61 - 40)
    assert begun == first.see(61 - 40)[0]
    third = Watched(rule())
    third.bench.second = second.bench.second
    third.standing.restore({("new", "errors", "production/shop"): (at, True)})
    assert third.see(300) == []
    assert [one.begun for one in third.see(31, GOOD)] == [False]


@pytest.mark.parametrize("kind", ["missing", "vanished", "silent", "few_samples", "no_share"])
def test_the_event_is_an_error_with_what_to_do_and_its_id_is_always_the_same(kind: str) -> None:
    found = Standing("production", "new", ["a", "b"], "shop", True, 1000, 1060, kind, "never seen")
    event = standing_event(found)
    assert event == standing_event(found)
    assert level(event) == 40
    assert event.data["reason"] == "'a', 'b' unknown since 00:16:40: never seen"
    assert len(event.data["check"]) > 10
    ended = standing_event(replace(found, begun=False, t=2000))
    assert ended.id != event.id
    assert level(ended) == 20
    later = standing_event(replace(found, t=1070, reason="late 4 % > 1 %"))
    assert later.id == event.id
