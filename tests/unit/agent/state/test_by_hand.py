"""People's orders, as the audit log records them."""

from __future__ import annotations

from typing import Any

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.state.by_hand import ByHand, by_hand, restores


def event(kind: str, at: float, name: str | None = None, **data: Any) -> Event:
    about = {"command_id": "c1", "incident": "i1", "flag": "bad", "environment": "production", "trigger": "by-hand"}
    return Event(type=kind, subject="production/bad", data={**about, **data}, id=name or f"{kind}{at}", time=at)


def ordered(at: float, **data: Any) -> Event:
    evidence = {"by": "ann", "reason": "kafka gone"}
    return event(events.COMMAND_RECEIVED, at, command={"evidence": evidence}, **data)


ROLLBACK = ByHand(
    what="rollback",
    environment="production",
    flag="bad",
    incident="i1",
    at=1.0,
    by="ann",
    reason="kafka gone",
    outcome="rolled back",
)


def test_a_rollback_by_hand_is_listed_with_who_why_and_what_came_of_it() -> None:
    log = [event(events.FLAG_VERIFIED, 2.0), ordered(1.0), ordered(1.0)]
    assert by_hand(log) == [ROLLBACK]


def test_one_without_an_outcome_is_under_way_and_a_triggers_is_no_persons() -> None:
    assert [order.outcome for order in by_hand([ordered(1.0)])] == ["under way"]
    assert by_hand([ordered(1.0, trigger="errors"), event(events.FLAG_VERIFIED, 2.0, trigger="errors")]) == []


def test_a_restore_is_found_by_its_incident_the_newest_one() -> None:
    log = [
        event(events.FLAG_RESTORED, 5.0, by="bob", reason="fixed", trigger="errors"),
        event(events.FLAG_RESTORED, 9.0, by="eve", reason="again", trigger="errors"),
    ]
    found = by_hand(log)
    assert [(order.what, order.by) for order in found] == [("restore", "eve"), ("restore", "bob")]
    assert restores(found) == {("i1", "bad"): found[0]}


def test_data_of_another_shape_is_no_error() -> None:
    log = [event(events.COMMAND_RECEIVED, 1.0, command="?"), event(events.FLAG_RESTORED, 2.0)]
    assert [order.by for order in by_hand(log)] == ["a person", "a person"]
