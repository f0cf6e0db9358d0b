"""`flipback explain`: all of an incident and nothing else, in order, and why nothing was done where nothing was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent import audit, events
from agent.events import Event
from agent.explain import NothingKnown, evidence_lines, explain, sentence
from detectors.triggers import State
from tests.unit.test_cli_flip import CONFIG, run
from tests.unit.test_executor import command

MADE = command()
SUBJECT = "production/new-checkout"


def verdict(at: float, to: str, trigger: str = "errors", subject: str = SUBJECT) -> Event:
    data = {
        "trigger": trigger,
        "scope": "production/shop",
        "from": "ok",
        "to": to,
        "samples": 100,
        "reason": "0.2 > 0.02",
    }
    return Event(type=events.trigger_type(to), subject=subject, data=data, id=f"{subject}{trigger}{at}{to}", time=at)


def step(kind: str, at: float, **data: Any) -> Event:
    return audit.step(MADE, kind, data, "0", at)


INCIDENT = [
    step(events.COMMAND_RECEIVED, 1002.0, command=msgspec.to_builtins(MADE)),
    step(events.FLAG_SNAPSHOT, 1002.0, variant="on", flag_version="g1-v", raw="{}"),
    step(events.FLAG_WRITTEN, 1002.1, version="v2", attempts=1, detail=""),
    step(events.FLAG_VERIFIED, 1002.2, variant="off", flag_version="g2-v2", took_s=0.2),
]
LOG = [
    verdict(100.0, "firing"),
    verdict(200.0, "ok"),
    verdict(880.0, "pending"),
    verdict(900.0, "firing", trigger="slow"),
    verdict(1000.0, "firing"),
    verdict(1000.0, "firing", subject="production/another"),
    *INCIDENT,
    verdict(1002.5, "ok"),
    verdict(5000.0, "pending"),
]


def times(found: list[Event]) -> list[float]:
    return [event.time for event in found]


def test_an_incident_is_told_from_its_triggers_trouble_to_its_last_step() -> None:
    found = explain(LOG[::-1], MADE.incident)
    assert times(found.events) == [880.0, 1000.0, 1002.0, 1002.0, 1002.1, 1002.2, 1002.5]
    assert {event.subject for event in found.events} == {SUBJECT}
    assert found.evidence == MADE.evidence


def test_a_flag_is_told_by_its_newest_trouble() -> None:
    log = [event for event in LOG if event.time < 5000]
    for name in (SUBJECT, "new-checkout"):
        found = explain(log, name)
        assert times(found.events)[0] == 880.0
        assert found.incident == MADE.incident


def test_why_nothing_was_done_is_told_of_a_flag_without_an_incident() -> None:
    outage = Event(
        type=events.INABILITY,
        subject=events.AUTOMATION,
        data={"reason": "5 of 5 watched flags fire at once"},
        id="outage",
        time=1001.0,
    )
    found = explain([verdict(900.0, "ok"), verdict(1000.0, "firing"), outage, verdict(1010.0, "ok")], SUBJECT)
    assert (found.incident, found.evidence) == (None, None)
    assert [event.type for event in found.events] == [
        events.trigger_type("firing"),
        events.INABILITY,
        events.trigger_type("ok"),
    ]


def test_what_the_log_does_not_know_is_said() -> None:
    with pytest.raises(NothingKnown, match="absent"):
        explain(LOG, "absent")
    both = [verdict(1.0, "firing"), verdict(1.0, "firing", subject="staging/new-checkout")]
    with pytest.raises(NothingKnown, match=r"production/new-checkout, staging/new-checkout"):
        explain(both, "new-checkout")


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


def test_the_evidence_is_told_in_numbers() -> None:
    text = "\n".join(evidence_lines(MADE.evidence))
    assert "error_rate of production/shop was 0.2, limit > 0.02" in text
    assert "100 samples in 60 s: 100 requests, 20 errors" in text
    by_hand = msgspec.structs.replace(MADE.evidence, by="ann", reason="customers call")
    assert list(evidence_lines(by_hand)) == ["by hand, by ann: customers call"]


EVERY_TYPE = sorted(
    value for name, value in vars(events).items() if name.isupper() and str(value).startswith("flipback.")
)


@pytest.mark.parametrize("kind", [*EVERY_TYPE, events.trigger_type("firing")])
def test_data_that_another_version_left_out_is_not_known_and_stops_nothing(kind: str) -> None:
    assert sentence(Event(type=kind, subject=SUBJECT, data={}, id="x", time=0.0))


def test_a_flip_without_its_variant_is_still_told() -> None:
    assert sentence(step(events.FLAG_VERIFIED, 1.0, took_s=0.2)).startswith("read back: ")


def test_of_a_flag_the_incidents_are_named_that_can_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = msgspec.structs.replace(MADE, incident="later", id="later")
    other = audit.step(later, events.FLAG_ALREADY, {}, "0", 1003.0)

    async def read_events(_: object) -> list[Event]:
        return [*INCIDENT, other]

    monkeypatch.setattr("agent.explain.read_events", read_events)
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    assert run("explain", "new-checkout", "-c", str(tmp_path / "flipback.yaml")) == 0
    output = capsys.readouterr().out
    assert f"incident {MADE.incident}" in output
    assert "incident later" in output
    assert [line for line in output.splitlines() if "flipback restore" in line] == [
        f"put it back with `flipback restore {MADE.incident} -c FILE`"
    ]


def test_without_kafka_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG.replace("9092", "1"))
    assert run("explain", "new-checkout", "-c", str(tmp_path / "flipback.yaml")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "127.0.0.1:1" in line
