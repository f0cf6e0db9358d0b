"""Log levels of events: level `error` has the events that need a person, and none that is over or normal."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from agent.events.cloudevents import Event
from agent.events.severity import level


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("inability", {"state": "begun"}, logging.ERROR),
        ("inability", {"reason": "the file is closed to writing"}, logging.ERROR),
        ("inability", {"state": "ended"}, logging.INFO),
        ("automation.halted", {}, logging.ERROR),
        ("automation.resumed", {}, logging.INFO),
        ("flag.ambiguous", {}, logging.ERROR),
        ("flag.ineffective", {}, logging.ERROR),
        ("incident.done", {"partial": True}, logging.ERROR),
        ("incident.done", {"partial": False}, logging.INFO),
        ("flag.not-recovered", {}, logging.WARNING),
        ("flag.unverified", {}, logging.WARNING),
        ("flag.effect-unknown", {}, logging.WARNING),
        ("flag.recovery-unknown", {}, logging.WARNING),
        ("command.rejected", {"reason": "bad-signature"}, logging.WARNING),
        ("command.rejected", {"reason": "duplicate"}, logging.INFO),
        ("flag.verified", {}, logging.INFO),
        ("trigger.firing", {}, logging.INFO),
    ],
)
def test_an_event_is_as_loud_as_what_it_asks_of_a_person(kind: str, data: dict[str, Any], expected: int) -> None:
    assert level(Event(type=f"flipback.{kind}", subject="prod/cart", data=data, id="1", time=0.0)) == expected
