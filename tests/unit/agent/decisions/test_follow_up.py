"""After a command: it is sent again when it can succeed, and the reason why the flag is not safe is announced."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.commands.command import Reason
from agent.decisions.follow_up import RESEND_MARGIN, RETRY_MARGIN, UNSEEN_AFTER, failed
from agent.events.cloudevents import INABILITY
from agent.events.wording import sentence
from agent.executor.resumption import RESUMED
from agent.state.incidents import CommandResult, Incident, encode
from agent.views.explain import explain
from tests.unit.agent.decisions.test_commander import LIFETIME, Bench, T, evidence, group, spec, status

SENT_AT = T + 2.0


async def commanded(bench: Bench, **seen: Any) -> Incident:
    """A commander that has just sent its command."""
    bench.see(status(**seen))
    await bench.commander.firing(T, [evidence()])
    (incident,) = bench.of("incident")
    assert isinstance(incident, Incident)
    return incident


def answer(bench: Bench, incident: Incident, **changes: Any) -> None:
    told = {"sent": incident.sent, "outcome": "rejected", "at": bench.now, "command": incident.command}
    bench.known.incident(encode(CommandResult(**{**told, **changes})))


async def fire(bench: Bench, passed: float) -> None:
    bench.now = SENT_AT + passed
    await bench.commander.firing(T + int(passed), [evidence(T + int(passed))])


async def test_a_command_in_its_cooldown_is_sent_again_when_that_is_over_and_nobody_is_woken_meanwhile() -> None:
    bench = Bench()
    incident = await commanded(bench)
    # The executor's clock is an hour ahead: only the difference of its times counts.
    at = bench.now + 3600
    answer(bench, incident, reason=Reason.COOLDOWN, detail="flipped 12 s ago", at=at, retry_at=at + 48.0)
    for passed in (1.0, UNSEEN_AFTER + 1, 48.0, 48.0 + RETRY_MARGIN):
        await fire(bench, passed)
        assert len(bench.of("command")) == 1
    await fire(bench, 48.0 + RETRY_MARGIN + 0.1)
    assert len({command.id for command in bench.of("command")}) == 1
    assert len(bench.of("command")) == 2
    assert bench.of("event") == []


async def test_a_cooldown_that_outlasts_the_command_is_not_asked_in_vain() -> None:
    bench = Bench()
    incident = await commanded(bench)
    answer(bench, incident, reason=Reason.COOLDOWN, retry_at=bench.now + 300.0)
    await fire(bench, LIFETIME + RESEND_MARGIN + 1)
    assert len(bench.of("command")) == 1
    await fire(bench, 302.0)
    assert len(bench.of("command")) == 2


async def test_a_retry_time_that_is_always_past_does_not_send_a_command_each_second() -> None:
    bench = Bench()
    await commanded(bench)
    for s in range(60):
        answer(bench, bench.of("incident")[-1], reason=Reason.COOLDOWN, retry_at=bench.now - 5.0)
        await fire(bench, float(s))
    assert len(bench.of("command")) <= 1 + 60 / RESEND_MARGIN


async def test_the_time_of_an_earlier_refusal_says_nothing_of_a_command_sent_since() -> None:
    bench = Bench()
    incident = await commanded(bench)
    answer(bench, incident, reason=Reason.COOLDOWN, retry_at=bench.now + 10.0)
    await fire(bench, 12.0)
    await fire(bench, 25.0)
    assert len(bench.of("command")) == 2
    await fire(bench, 12.0 + LIFETIME + RESEND_MARGIN + 1)
    assert len(bench.of("command")) == 3


@pytest.mark.parametrize("passed", [LIFETIME, LIFETIME + 5.0])
async def test_a_command_is_not_sent_anew_while_an_executor_may_be_at_work_on_the_old_one(passed: float) -> None:
    bench = Bench()
    await commanded(bench)
    # An executor has 5 s for a command that it began just before the command's expiry.
    await fire(bench, passed)
    assert len(bench.of("command")) == 1
    await fire(bench, LIFETIME + 5.1)
    assert len(bench.of("command")) == 2


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_KEY, Reason.WRONG_STATE, Reason.HALTED, Reason.FROM_THE_FUTURE])
async def test_a_refusal_is_announced_at_once_with_its_reason_in_its_incident(reason: Reason) -> None:
    bench = Bench()
    incident = await commanded(bench)
    # An executor that cannot verify the bytes of a command knows only their digest.
    named = {} if reason is not Reason.UNKNOWN_KEY else {"command": ""}
    answer(bench, incident, reason=reason, detail="what was expected", **named)
    for passed in (0.5, 1.0, UNSEEN_AFTER + 1):
        await fire(bench, passed)
    (event,) = bench.of("event")
    assert event.type == INABILITY
    assert event.data["incident"] == incident.id
    assert reason in event.data["reason"]
    assert "what was expected" in event.data["reason"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "no executor has answered"),
        ({"outcome": "ambiguous", "detail": "no answer"}, "ambiguous: no answer"),
        ({"outcome": "applied"}, "applied"),
        ({"reason": None, "detail": "flags.json: there is no such file"}, "there is no such file"),
        ({"sent": "earlier", "outcome": "conflict"}, "no executor has answered this one"),
        ({"sent": "earlier", "outcome": "conflict", "detail": "edited"}, "answered with conflict: edited"),
    ],
)
async def test_after_30_s_a_person_hears_what_the_executor_answered(told: dict[str, Any] | None, words: str) -> None:
    bench = Bench()
    incident = await commanded(bench)
    if told is not None:
        answer(bench, incident, **told)
    await fire(bench, UNSEEN_AFTER)
    assert bench.of("event") == []
    await fire(bench, UNSEEN_AFTER + 0.1)
    (event,) = bench.of("event")
    assert event.data["reason"].startswith("flag still 'on' 30 s after the command")
    assert words in event.data["reason"]


async def test_a_command_that_no_executor_can_verify_is_explained_in_its_incident() -> None:
    bench = Bench()
    incident = await commanded(bench)
    answer(bench, incident, command="", reason=Reason.UNKNOWN_KEY, detail="signed with key 4f, accepted are 8a")
    await fire(bench, 1.0)
    found = explain(bench.of("event"), incident.id)
    assert (found.subject, found.incident) == ("production/new", incident.id)
    assert any("signed with key 4f" in sentence(event) for event in found.events)


async def test_a_flag_that_gives_different_variants_is_said_so() -> None:
    bench = Bench()
    split = {"version": "g1-a", "changed_at": None}
    await commanded(bench, **split)
    key = "production", "new"
    bench.known.flags[key] = type(bench.known.flags[key])(
        flag="new", environment="production", version="g1-a", variant=None, safe=False, at=float(T)
    )
    await fire(bench, UNSEEN_AFTER + 1)
    (event,) = bench.of("event")
    assert event.data["reason"].startswith("flag still gives different variants 30 s after the command")


async def test_what_fired_in_shadow_is_commanded_when_the_mode_becomes_active() -> None:
    shadow = Bench()
    shadow.see(status())
    await shadow.commander.firing(T, [evidence(of=spec(shadow=True))])
    (told,) = shadow.of("incident")
    assert (told.outcome, shadow.of("command")) == ("shadow", [])
    active = Bench(now=T + 10.0)
    active.see(status())
    active.known.incident(encode(told))
    for t in (T + 8, T + 9):
        await active.commander.firing(t, [evidence(t)])
    (command,) = active.of("command")
    assert command.incident == told.id
    (incident,) = active.of("incident")
    assert (incident.outcome, incident.commanded_at, incident.begun_at) == ("commanded", T + 10.0, T + 10.0)


async def test_what_was_commanded_is_not_overwritten_when_the_mode_becomes_shadow() -> None:
    bench = Bench()
    await commanded(bench)
    bench.now += LIFETIME + 60
    await bench.commander.firing(T + 120, [evidence(T + 120, of=spec(shadow=True))])
    assert len(bench.of("incident")) == 1
    assert len(bench.of("command")) == 1


async def undone(bench: Bench, times: int, *, every: float = 60.0, flipped: bool = True) -> None:
    """Turn the flag on again after each flip or, if not `flipped`, change it although nothing was flipped."""
    step = 2 if flipped else 1
    for n in range(times):
        t = T + int(n * every)
        bench.now = t + 2.0
        bench.see(status(f"g{1 + step * n}-x", changed_at=t - 40.0))
        await bench.commander.firing(t, [evidence(t, since=t - 30.0)])
    assert len(bench.of("command")) == times


async def test_the_third_flip_of_a_flag_that_somebody_turns_on_again_is_told_as_a_fight() -> None:
    bench = Bench()
    await undone(bench, 2)
    assert bench.of("event") == []
    third = Bench()
    await undone(third, 3)
    (event,) = third.of("event")
    assert event.type == INABILITY
    assert "flip 3 of the flag within 2 min" in event.data["reason"]
    # A note: the third flip was done nevertheless.
    assert sentence(event).startswith("note: this is flip 3")


async def test_flips_far_apart_and_changes_that_undo_no_flip_are_no_fight() -> None:
    seldom = Bench()
    await undone(seldom, 5, every=1000.0)
    ramp = Bench()
    await undone(ramp, 5, flipped=False)
    for bench in (seldom, ramp):
        assert [event for event in bench.of("event") if "flip 3" in event.data["reason"]] == []


async def test_a_group_that_is_sent_again_keeps_the_time_of_its_first_sending() -> None:
    bench = Bench(flags=group("a"))
    bench.see(status())
    await bench.commander.firing(T, [evidence()])
    await fire(bench, LIFETIME + RESEND_MARGIN + 1)
    first, second = bench.of("incident")
    assert (first.begun_at, second.begun_at) == (SENT_AT, SENT_AT)
    assert first.sent != second.sent


async def test_sending_a_command_again_makes_nobody_wait_for_it_anew() -> None:
    bench = Bench()
    incident = await commanded(bench)
    again = msgspec.structs.replace(incident, commanded_at=SENT_AT + 65, sent="of the second")
    assert failed(again, None, SENT_AT + 66, 120.0) is not None


async def test_a_halt_is_waited_for_as_long_as_an_executor_answers_with_it() -> None:
    bench = Bench()
    incident = await commanded(bench)
    answer(bench, incident, reason=Reason.HALTED)
    result = bench.known.result_of(incident)
    assert failed(incident, result, SENT_AT + 3600, 120.0) is None
    # The command was sent again, perhaps after a resumption, and no executor answers.
    again = msgspec.structs.replace(incident, commanded_at=SENT_AT + 65, sent="of the second")
    assert failed(again, result, SENT_AT + 66, 120.0) is None
    assert failed(again, result, SENT_AT + 65 + UNSEEN_AFTER + 1, 120.0) is not None


async def test_what_a_halt_refused_is_sent_again_at_the_resumption_and_a_person_hears_of_no_new_trouble() -> None:
    bench = Bench()
    incident = await commanded(bench)
    answer(bench, incident, reason=Reason.HALTED, detail="halted by ann")
    await fire(bench, 20.0)
    (told,) = bench.of("event")
    assert "sent again after `flipback resume`" in told.data["reason"]
    # The executor's clock is an hour ahead.
    answer(bench, incident, reason=Reason.HALTED, detail=RESUMED, at=bench.now + 3600, retry_at=bench.now + 3600)
    await fire(bench, 20.1)
    first, second = bench.of("command")
    assert first.id == second.id
    assert len(bench.of("event")) == 1
    # The answer to the first sending does not count for the second.
    await fire(bench, 40.0)
    assert len(bench.of("command")) == 2
