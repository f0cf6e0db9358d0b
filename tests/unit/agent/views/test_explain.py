"""`flipback explain` shows all events of an incident, in order, and no others; and the reason if nothing was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.events.wording import sentence
from agent.executor import audit
from agent.state.flag_changes import change_of
from agent.state.flag_now import OUTSIDE
from agent.state.flags import FlagStatus
from agent.views.evidence_lines import evidence_lines
from agent.views.explain import AuditLog, NothingKnown, explain
from agent.views.flag_line import flag_line
from tests.unit.agent.cli.test_keys_and_restore import CONFIG, FLAGS, run
from tests.unit.agent.executor.test_executor import command

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


def test_the_evidence_is_told_in_numbers() -> None:
    text = "\n".join(evidence_lines(MADE.evidence))
    assert "error_rate of production/shop was 20 %, limit > 2 %" in text
    assert "100 samples in 60 s: 100 requests, 20 errors" in text
    by_hand = msgspec.structs.replace(MADE.evidence, by="ann", reason="customers call")
    assert list(evidence_lines(by_hand)) == ["by hand, by ann: customers call"]


STATUS = FlagStatus(
    flag="new-checkout",
    environment="production",
    version="g2-v2",
    variant="off",
    safe=True,
    at=6000.0,
    changed_at=1002.1,
)


def state(**changes: Any) -> FlagStatus:
    return msgspec.structs.replace(STATUS, **changes)


def change(at: float, before: FlagStatus, after: FlagStatus) -> Event:
    event = change_of(before, msgspec.structs.replace(after, changed_at=at))
    assert event is not None
    return event


ON = state(version="g1-v", variant="on", safe=False, changed_at=None)


def test_a_flag_is_explained_by_its_newest_flip_however_much_came_after() -> None:
    later = [verdict(2000.0 + 60 * i, to, trigger="down") for i, to in enumerate(("ok", "unknown") * 20)]
    trouble = verdict(9000.0, "pending", trigger="down")
    found = explain([*LOG, *later, trouble], SUBJECT, [STATUS])
    assert (found.incident, found.evidence) == (MADE.incident, MADE.evidence)
    assert [event.type for event in found.events if event.type == events.FLAG_VERIFIED] == [events.FLAG_VERIFIED]
    assert [event.time for event in found.since] == [5000.0, 9000.0]
    assert found.folded == len(later)


def test_what_a_flag_is_now_names_since_when_by_whom_why_and_that_it_can_be_undone() -> None:
    now = explain(LOG, SUBJECT, [STATUS]).now
    assert now is not None
    assert (now.since, now.by, now.reason) == (1002.2, "flipback", "trigger errors")
    assert (now.incident, now.restorable) == (MADE.incident, True)
    by_hand = msgspec.structs.replace(
        MADE, trigger="by-hand", evidence=msgspec.structs.replace(MADE.evidence, by="ann", reason="customers call")
    )
    steps = [audit.step(by_hand, events.COMMAND_RECEIVED, {"command": msgspec.to_builtins(by_hand)}, "0", 1002.0)]
    now = explain([*steps, *INCIDENT[2:]], SUBJECT, [STATUS]).now
    assert now is not None
    line = flag_line(now, 1002.2 + 720)
    assert line == "gives 'off' (safe) since 00:16:42Z (12 min ago), set by ann: 'customers call'"


def test_a_change_by_a_person_stands_in_the_timeline_and_outdates_the_flip() -> None:
    turned_on = change(700.0, state(version="g1-a"), state(version="g2-v", variant="on", safe=False))
    again = change(4000.0, STATUS, state(version="g3-v", variant=None, percent=50.0, safe=False))
    found = explain([turned_on, *LOG, again], SUBJECT, [state(version="g3-v", variant=None, percent=50.0, safe=False)])
    assert [event.id for event in found.events if event.type == events.FLAG_CHANGED] == [turned_on.id]
    assert again in found.since
    assert sentence(again) == "changed in the flag system: 'off' before, 50 % since"
    assert found.now is not None
    assert (found.now.since, found.now.by, found.now.restorable) == (4000.0, OUTSIDE, False)


def test_a_change_that_nobody_has_published_yet_is_not_taken_for_the_flip() -> None:
    now = explain(LOG, SUBJECT, [state(version="g3-w", variant="on", safe=False, changed_at=1100.0)]).now
    assert now is not None
    assert (now.since, now.by, now.incident) == (1100.0, OUTSIDE, None)


def test_flipbacks_own_writes_are_no_changes_by_a_person() -> None:
    restored = step(events.FLAG_RESTORED, 3000.0, variant="on", version="v", by="ann", reason="fixed")
    echoes = [change(1002.4, ON, STATUS), change(3008.0, STATUS, state(version="g3-v", variant="on", safe=False))]
    found = explain([*LOG, restored, *echoes], SUBJECT, [state(version="g3-v", variant="on", safe=False)])
    assert all(event.type != events.FLAG_CHANGED for event in [*found.events, *found.since])
    assert found.now is not None
    assert (found.now.since, found.now.by, found.now.reason) == (3000.0, "ann", "'fixed'")
    # If a person turns the flag off and on again, it gets the same content version as by the restore.
    later = change(9000.0, state(version="g4-x"), state(version="g5-v", variant="on", safe=False))
    found = explain([*LOG, restored, later], SUBJECT, [state(version="g5-v", variant="on", safe=False)])
    assert found.now is not None
    assert (found.now.since, found.now.by) == (9000.0, OUTSIDE)


def test_a_flag_without_any_event_is_explained_by_its_state() -> None:
    found = explain([], "new-checkout", [ON])
    assert (found.events, found.incident) == ([], None)
    assert found.now is not None
    assert flag_line(found.now, 0.0) == "gives 'on' (in use), unchanged since flipback first read it"


def test_only_a_later_version_is_a_change() -> None:
    assert change_of(None, STATUS) is None
    assert change_of(STATUS, state(at=7000.0)) is None
    assert change_of(STATUS, ON) is None
    assert change_of(ON, STATUS) == change_of(ON, state(at=7000.0))


def test_the_evidence_shows_every_variant_so_that_one_sees_which_failed() -> None:
    counts = {"on": {"requests": 2000, "errors": 206}, "off": {"requests": 2010, "latency_count": 4, "latency_us": 48}}
    text = list(evidence_lines(msgspec.structs.replace(MADE.evidence, variants=counts)))
    assert "  on: 2,000 requests, 206 errors" in text
    assert "  off: 2,010 requests, mean latency 0.012 ms" in text
    longer = msgspec.structs.replace(MADE.evidence, variants=counts, window=(1000.0, 1160.0))
    assert "  in the last 60 s of them:" in list(evidence_lines(longer))


def test_of_a_flag_the_incidents_are_named_that_can_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = msgspec.structs.replace(MADE, incident="later", id="later")
    other = audit.step(later, events.FLAG_ALREADY, {}, "0", 1003.0)

    async def read_audit(_: object) -> AuditLog:
        return AuditLog([*INCIDENT, other], [])

    monkeypatch.setattr("agent.views.explain.read_audit", read_audit)
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    assert run("explain", "new-checkout", "-c", str(tmp_path / "flipback.yaml")) == 0
    output = capsys.readouterr().out
    assert f"incident {MADE.incident}" in output
    assert "another incident: later" in output
    assert [line for line in output.splitlines() if "flipback restore" in line] == [
        f"put it back with: flipback restore {MADE.incident} -c {tmp_path / 'flipback.yaml'} --reason ..."
    ]


ALREADY = msgspec.structs.replace(MADE, incident="later", id="later")
LATER = [
    audit.step(ALREADY, events.COMMAND_RECEIVED, {"command": msgspec.to_builtins(ALREADY)}, "0", 1500.0),
    audit.step(ALREADY, events.FLAG_ALREADY, {}, "0", 1500.1),
]


def test_the_body_tells_the_flip_of_the_first_line_and_not_a_later_command_that_did_nothing() -> None:
    found = explain([*LOG, *LATER], SUBJECT, [STATUS])
    assert found.now is not None
    assert (found.now.incident, found.incident) == (MADE.incident, MADE.incident)
    assert LATER[1] in found.since
    # If somebody has turned the flag on again, the newest flip that wrote is explained.
    again = change(4000.0, STATUS, state(version="g3-w", variant="on", safe=False))
    found = explain([*LOG, *LATER, again], SUBJECT, [state(version="g3-w", variant="on", safe=False)])
    assert found.incident == MADE.incident
    assert explain(LATER, SUBJECT).incident == "later"


OLD = state(version="g7-v", variant=None, safe=False, at=990.0, changed_at=None)


def test_a_flip_that_only_the_ledger_of_this_machine_has_is_what_the_flag_is_now() -> None:
    for log, local in (([], INCIDENT), (INCIDENT[:1], INCIDENT[1:]), ([], INCIDENT[:3])):
        found = explain(log, SUBJECT, [OLD], local)
        assert found.now is not None
        line = flag_line(found.now, 1010.0)
        assert line.startswith("gives 'off' (safe) since 00:16:42Z")
        assert line.endswith("trigger errors, by the ledger of this machine; no executor has published it yet")
        assert found.incident == MADE.incident
    # A state that was read after the flip includes it.
    now = explain([], SUBJECT, [STATUS], INCIDENT).now
    assert now is not None
    assert (now.unpublished, now.read_at) == (False, STATUS.at)


def test_a_state_that_nobody_has_read_for_a_minute_is_shown_with_its_time() -> None:
    now = explain([], SUBJECT, [OLD]).now
    assert now is not None
    assert flag_line(now, 1049.0) == "gives different variants (in use), unchanged since flipback first read it"
    assert flag_line(now, 1051.0).endswith("; as of 00:16:30Z, no executor has read it since")


def test_without_kafka_the_ledger_of_this_machine_tells_its_story(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "flipback.yaml"
    path.write_text(CONFIG.replace("9092", "1"))
    (tmp_path / "flags.json").write_text(FLAGS)
    assert run("rollback", "new-checkout", "--direct", "--reason", "calls", "--yes", "-c", str(path)) == 0
    capsys.readouterr()
    assert run("explain", "new-checkout", "-c", str(path)) == 1
    output, errors = capsys.readouterr()
    assert "gives 'off' (safe) since " in output.splitlines()[0]
    assert output.splitlines()[0].endswith("'calls', by the ledger of this machine")
    assert "what happened" in output
    assert "Kafka could not be read" in errors
    assert "127.0.0.1:1" in errors


def test_explaining_makes_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG.replace("9092", "1"))
    assert run("explain", "new-checkout", "-c", str(tmp_path / "flipback.yaml")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["flipback.yaml"]


def test_without_kafka_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG.replace("9092", "1"))
    assert run("explain", "new-checkout", "-c", str(tmp_path / "flipback.yaml")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "127.0.0.1:1" in line
