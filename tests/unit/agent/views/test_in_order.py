"""Events are shown in causal order, whatever the clocks say."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.audit import step
from agent.views.explanation_lines import timeline
from agent.views.in_order import in_order, made_at
from tests.unit.agent.executor.test_executor import command

MADE = command()
FIRED = MADE.evidence.fired_at
"""The evaluation that the command follows from."""
SUBJECT = "production/new-checkout"
FLIPPED = FIRED + 2.4


def verdict(t: float, to: str, *, recorded: float, flag_since: float | None = None) -> Event:
    """Make the verdict of evaluation `t`, made at `recorded` by the monitor's clock."""
    data: dict[str, Any] = {"trigger": MADE.trigger, "to": to, "samples": 100, "scope": "production/shop"}
    if flag_since is not None:
        data["flag_since"] = flag_since
    return Event(type=events.trigger_type(to), subject=SUBJECT, data=data, id=f"{to}{t}", time=t, recorded=recorded)


def flip(received: float = FIRED + 2.1) -> list[Event]:
    """Make the steps of the flip, by the executor's clock, as published again after its crash."""
    steps = [
        step(MADE, events.COMMAND_RECEIVED, {"command": msgspec.to_builtins(MADE)}, "0", received),
        step(MADE, events.FLAG_SNAPSHOT, {}, "0", received),
        step(MADE, events.FLAG_WRITTEN, {}, "0", received + 0.2),
        step(MADE, events.FLAG_VERIFIED, {}, "0", received + 0.3),
    ]
    return [msgspec.structs.replace(event, recorded=received + 30.0) for event in steps]


def kinds(found: list[Event]) -> list[str]:
    return [event.type.removeprefix("flipback.") for event in found]


STORY = [
    "trigger.pending",
    "trigger.firing",
    "command.received",
    "flag.snapshot",
    "flag.written",
    "flag.verified",
    "trigger.ok",
    "flag.effective",
]


def story(skew: float, lag: float = 2.0) -> list[Event]:
    """Make the events around a flip. The monitor's clock is `skew` ahead of the executor's, its verdicts `lag` late."""
    effective = step(MADE, events.FLAG_EFFECTIVE, {}, "0", FIRED + 3)
    return [
        verdict(FIRED - 5, "pending", recorded=FIRED - 5 + lag + skew),
        verdict(FIRED, "firing", recorded=FIRED + lag + skew),
        *flip(),
        # The verdict of the very next second: its evidence is earlier than the command.
        verdict(FIRED + 1, "ok", recorded=FIRED + 1 + lag + skew, flag_since=FIRED + 3),
        msgspec.structs.replace(effective, recorded=FIRED + 3 + lag + skew),
    ]


@pytest.mark.parametrize("skew", [-10.0, -1.0, 0.0, 0.2, 1.0, 10.0])
def test_causes_stand_before_effects_whatever_the_clocks_of_the_processes(skew: float) -> None:
    assert kinds(in_order(story(skew))) == STORY


@given(skew=st.floats(-30, 30), lag=st.floats(0, 20), shuffled=st.randoms())
def test_what_was_made_after_a_flip_never_stands_before_its_command(skew: float, lag: float, shuffled: Any) -> None:
    log = story(skew, lag)
    steps, rest = log[2:6], [*log[:2], *log[6:]]
    shuffled.shuffle(rest)
    found = kinds(in_order([*rest[:2], *steps, *rest[2:]]))
    assert found.index("trigger.firing") < found.index("command.received")
    assert found.index("flag.verified") < min(found.index("trigger.ok"), found.index("flag.effective"))


def test_a_timeline_shows_verdicts_by_when_they_were_made_and_up_to_when_there_was_evidence() -> None:
    lines = list(timeline(in_order(story(0.0)), SUBJECT, FIRED - 3))
    firing, received = (next(line for line in lines if word in line) for word in (" is firing", "command: "))
    ok = next(line for line in lines if " is ok" in line)
    assert firing.startswith("     +5.000 s  trigger errors is firing")
    assert firing.endswith(f", evidence up to {datetime.fromtimestamp(FIRED, UTC):%H:%M:%SZ}")
    assert received.startswith("     +5.100 s  command: ")
    assert ok.startswith("     +6.000 s  trigger errors is ok")


def test_a_note_on_a_flip_stands_behind_its_command() -> None:
    data = {"trigger": MADE.trigger, "status": events.NOTICE, "incident": MADE.incident, "reason": "flip 3"}
    note = Event(type=events.INABILITY, subject=SUBJECT, data=data, id="n", time=FIRED + 2.05, recorded=FIRED + 2.05)
    found = kinds(in_order([note, *story(0.0)]))
    assert found.index("command.received") < found.index("inability") < found.index("flag.written")


def test_the_order_does_not_depend_on_the_order_of_what_was_read() -> None:
    log = [event for event in story(0.3) if event.type != events.FLAG_SNAPSHOT]
    for shuffled in permutations(log, len(log)):
        assert in_order(shuffled) == in_order(log)


def test_a_verdict_before_a_command_that_came_late_stays_before_it() -> None:
    """The executor was away, and the trigger became unknown meanwhile, for the version judged then."""
    unknown = verdict(FIRED + 5, "unknown", recorded=FIRED + 7, flag_since=FIRED - 900)
    found = kinds(in_order([*flip(received=FIRED + 20), unknown]))
    assert found[0] == "trigger.unknown"


def test_a_later_flip_of_the_flag_does_not_move_what_came_of_an_earlier_one() -> None:
    evidence = msgspec.structs.replace(MADE.evidence, fired_at=FIRED + 600)
    later = msgspec.structs.replace(MADE, id="later", incident="later", evidence=evidence)
    received = step(later, events.COMMAND_RECEIVED, {"command": msgspec.to_builtins(later)}, "0", FIRED + 602)
    log = story(0.0)
    assert in_order([received, *log]) == [*in_order(log), received]


def test_an_event_without_more_than_its_time_keeps_it() -> None:
    old = msgspec.structs.replace(verdict(FIRED, "firing", recorded=0.0), recorded=None)
    assert made_at(old) == FIRED
    odd = Event(type=events.COMMAND_RECEIVED, subject=SUBJECT, data={"command": "?"}, id="odd", time=FIRED - 1)
    assert in_order([old, odd, old]) == [odd, old]
