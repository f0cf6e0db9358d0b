"""Every event has a sentence, whatever its data lacks."""

from __future__ import annotations

from typing import Any

import pytest

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.events.wording import sentence
from detectors.triggers.state_machine import State
from tests.unit.agent.views.test_explain import INCIDENT, LOG, SUBJECT, step, verdict


def test_every_event_has_a_sentence() -> None:
    for event in LOG:
        assert sentence(event)
    assert sentence(INCIDENT[3]) == "read back: 'off' for everyone, 0.200 s after the command"
    unknown = Event(type="flipback.flag.later", subject=SUBJECT, data={"reason": "r", "n": 1}, id="x", time=0.0)
    assert sentence(unknown) == "flag.later: reason r, n 1"
    for state in State:
        assert state.name.lower() in sentence(verdict(0.0, state.name.lower()))


def test_a_halt_and_its_end_are_told_with_who_why_and_what_to_do() -> None:
    data: dict[str, Any] = {
        "reason": "2 flags in 600 s",
        "by": "flipback",
        "todo": "find out why",
        "flags": ["a"],
        "refused": "id",
    }
    halted = Event(type=events.AUTOMATION_HALTED, subject=events.AUTOMATION, data=data, id="h", time=0.0)
    assert sentence(halted) == "halted by flipback: 2 flags in 600 s; find out why"
    data = {"reason": "", "by": "ann", "halted_at": 0.0, "halted_because": "2 flags in 600 s"}
    resumed = Event(type=events.AUTOMATION_RESUMED, subject=events.AUTOMATION, data=data, id="r", time=1.0)
    assert sentence(resumed) == "resumed by ann: no reason given"


def test_a_flip_that_was_not_read_back_is_not_told_as_one_that_was() -> None:
    said = sentence(step(events.FLAG_UNVERIFIED, 1002.2, took_s=0.2, detail="acknowledged; it cannot be read back"))
    assert said == "not read back: acknowledged; it cannot be read back; 0.200 s after the command"


EVERY_TYPE = sorted(
    value for name, value in vars(events).items() if name.isupper() and str(value).startswith("flipback.")
)


@pytest.mark.parametrize("kind", [*EVERY_TYPE, events.trigger_type("firing")])
def test_every_type_has_words_of_its_own(kind: str) -> None:
    data = {"reason": "why", "metric": "error_rate", "method": "page-hinkley", "flags": {"new": "applied"}}
    said = sentence(Event(type=kind, subject=SUBJECT, data=data, id="x", time=0.0))
    assert not said.startswith(kind.removeprefix("flipback."))


def test_what_is_not_known_after_a_flip_is_said_in_words() -> None:
    said = sentence(step(events.FLAG_EFFECT_UNKNOWN, 1060.0, before_rps=10.0, after_rps=None, reason="no samples"))
    assert said == "it is not known whether the flip took effect: no samples"
    data = {"metric": "error_rate", "was": 0.2, "reason": "samples 3, wanted 30, late 0"}
    said = sentence(step(events.FLAG_RECOVERY_UNKNOWN, 1120.0, **data))
    assert said == ("it is not known whether the service recovered: samples 3, wanted 30, late 0; error_rate was 20 %")


@pytest.mark.parametrize("kind", [*EVERY_TYPE, events.trigger_type("firing")])
def test_data_that_another_version_left_out_is_not_known_and_stops_nothing(kind: str) -> None:
    assert sentence(Event(type=kind, subject=SUBJECT, data={}, id="x", time=0.0))


def test_a_flip_without_its_variant_is_still_told() -> None:
    assert sentence(step(events.FLAG_VERIFIED, 1.0, took_s=0.2)).startswith("read back: ")
