"""Flags of one service take turns: one that cannot be turned back does not block the others, and no turn halts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commands.command import Command, Reason
from agent.decisions.follow_up import UNSEEN_AFTER
from agent.decisions.turns import AutomationLimit, before, beyond_limit, given_up
from agent.state.flags import FlagStatus, generation
from agent.state.incidents import CommandResult, Incident, encode
from agent.state.state_tables import StateTables
from detectors.conditions.grammar import parse
from tests.unit.agent.decisions.test_commander import FLAG, Bench, T, evidence, spec, status

BAKE = 120


@dataclass
class Service:
    """Flags of one service whose triggers fire while `guilty` is on.

    `answers` has the fate of each flag's commands: "obeys", "late" if a person made the flag safe first, silence, or
    the fields of a result.
    """

    answers: dict[str, Any]
    guilty: str = ""
    limit: AutomationLimit = field(default_factory=lambda: AutomationLimit(9, 600.0))
    changes_every: int | None = None

    def __post_init__(self) -> None:
        flags = [msgspec.structs.replace(FLAG, flag=name) for name in self.answers]
        watched = {("production", flag.flag): ["shop"] for flag in flags}
        self.bench = Bench(flags=flags, watched=watched, limit=self.limit)
        for number, flag in enumerate(flags):
            seen = msgspec.structs.replace(status(changed_at=float(T - 2000 + 100 * number)), flag=flag.flag)
            self.bench.see(seen)

    def _status(self, name: str) -> FlagStatus:
        return self.bench.known.flags["production", name]

    async def run(self, seconds: int) -> None:
        for s in range(seconds):
            self.bench.now = T + 2.0 + s
            if self.changes_every is not None and s % self.changes_every == 0:
                self._change(list(self.answers)[-1])
            if self.guilty and self._status(self.guilty).safe:
                return
            firing = [
                evidence(T + s, of=replace(spec(), flag=name), since=T - 60.0)
                for name in self.answers
                if not self._status(name).safe
            ]
            before = len(self.bench.of("command"))
            await self.bench.commander.firing(T + s, firing)
            for command in self.bench.of("command")[before:]:
                self._answer(command)

    def _change(self, name: str, **changes: Any) -> None:
        known = self._status(name)
        number = generation(known.version) + 1
        changes = {"version": f"g{number}-x", "at": self.bench.now, "changed_at": self.bench.now, **changes}
        self.bench.see(msgspec.structs.replace(known, **changes))

    def _answer(self, command: Command) -> None:
        answer = self.answers[command.flag]
        if answer in ("obeys", "late"):
            self._change(command.flag, variant="off", safe=True)
        fields = {"outcome": "already"} if answer == "late" else answer
        if isinstance(fields, dict):
            incident = self.bench.known.incidents[command.incident]
            told = {"outcome": "rejected", "at": self.bench.now, "command": command.id, "sent": incident.sent, **fields}
            self.bench.known.incident(encode(CommandResult(**told)))

    def sent(self, name: str) -> list[int]:
        return [round(command.issued_at - T) for command in self.bench.of("command") if command.flag == name]

    def told(self, name: str) -> list[str]:
        return [event.data["reason"] for event in self.bench.of("event") if event.subject == f"production/{name}"]


async def test_the_next_flag_follows_when_the_first_was_turned_back_and_the_breach_stays() -> None:
    service = Service({"guilty": "obeys", "last": "obeys"}, guilty="guilty")
    await service.run(600)
    assert service.sent("last") == [2]
    assert service.sent("guilty") == [2 + BAKE]


@pytest.mark.parametrize(
    "answer",
    [
        {"reason": Reason.UNKNOWN_FLAG},
        {"reason": Reason.WRONG_STATE, "detail": "no variant off"},
        {"reason": Reason.UNKNOWN_KEY},
    ],
)
async def test_a_flag_whose_command_is_refused_for_good_keeps_no_other_on(answer: dict[str, Any]) -> None:
    service = Service({"guilty": "obeys", "last": answer}, guilty="guilty")
    await service.run(600)
    assert service.sent("guilty") == [3]
    (refused, passed) = service.told("last")
    assert answer["reason"] in refused
    assert "passed over" in passed
    assert "'guilty'" in passed


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"reason": None, "detail": "no answer from the flag system"},
        {"outcome": "conflict"},
        {"outcome": "ambiguous"},
        {"outcome": "applied"},
        {"reason": Reason.EXPIRED},
    ],
)
async def test_a_flag_that_does_not_become_safe_keeps_another_on_for_30_s_at_most(
    answer: dict[str, Any] | None,
) -> None:
    service = Service({"guilty": "obeys", "last": answer}, guilty="guilty")
    await service.run(600)
    assert service.sent("guilty") == [2 + UNSEEN_AFTER + 1]
    assert any("passed over" in told for told in service.told("last"))


@pytest.mark.parametrize("retry_in", [20.0, 90.0, 1e9])
async def test_a_flag_in_its_cooldown_is_waited_for_but_not_for_ever(retry_in: float) -> None:
    answer = {"reason": Reason.COOLDOWN, "at": 7.0, "retry_at": 7.0 + retry_in}
    service = Service({"guilty": "obeys", "last": answer}, guilty="guilty")
    await service.run(600)
    (sent,) = service.sent("guilty")
    assert 2 + UNSEEN_AFTER < sent <= 2 + BAKE + 1


async def test_a_flag_that_changes_too_often_to_be_judged_keeps_another_on_for_a_bounded_time() -> None:
    service = Service({"guilty": "obeys", "ramp": "obeys"}, guilty="guilty", changes_every=10)
    await service.run(600)
    assert service.sent("ramp") == []
    assert service.sent("guilty") == [2 + BAKE + 1]
    assert any("passed over" in told for told in service.told("ramp"))


async def test_while_everything_is_halted_no_flag_is_sent_in_anothers_place() -> None:
    service = Service({"guilty": "obeys", "last": {"reason": Reason.HALTED}})
    await service.run(400)
    assert service.sent("guilty") == []
    assert len(service.sent("last")) > 1, "it is asked again, for when a person resumes"


async def test_flags_that_are_tried_in_turn_keep_within_the_limit_and_a_person_hears_when_the_next_is_due() -> None:
    service = Service({"guilty": "obeys", "last": "obeys"}, guilty="guilty", limit=AutomationLimit(1, 600.0))
    await service.run(900)
    assert service.sent("last") == [2]
    # Ten seconds more, because the executor's clock may differ.
    assert service.sent("guilty") == [2 + 600 + 10]
    (told,) = [reason for reason in service.told("guilty") if "automation.max_flips" in reason]
    assert "'last'" in told
    assert f"next at {time.strftime('%H:%M:%SZ', time.gmtime(T + 2 + 600 + 10))}" in told


async def test_a_flag_that_a_person_turned_off_before_its_command_came_uses_up_no_limit() -> None:
    service = Service({"guilty": "obeys", "last": "late"}, guilty="guilty", limit=AutomationLimit(1, 600.0))
    await service.run(300)
    assert service.sent("guilty") == [2 + BAKE]


async def test_flags_of_other_services_that_use_up_the_limit_are_for_the_halt_to_judge() -> None:
    service = Service({"guilty": "obeys"}, guilty="guilty", limit=AutomationLimit(1, 600.0))
    elsewhere = msgspec.structs.replace(status("g2-x", changed_at=T - 5.0, safe=True), flag="far")
    service.bench.see(elsewhere)
    service.bench.known.incidents["i"] = Incident(
        id="i",
        environment="production",
        flag="far",
        service="search",
        trigger="errors",
        flag_version="g1-x",
        outcome="commanded",
        command="c",
        fired_at=T - 6.0,
        commanded_at=T - 6.0,
        expires_at=T + 54.0,
    )
    await service.run(5)
    assert service.sent("guilty") == [2]


def commanded(version: str = "g1-x", *, at: float = T - 40.0) -> Incident:
    """Make an incident of another flag of the service, whose command had no effect for 40 s."""
    return Incident(
        id=f"i-{version}",
        environment="production",
        flag="rival",
        service="shop",
        trigger="errors",
        flag_version=version,
        outcome="commanded",
        command="c",
        fired_at=at,
        commanded_at=at,
        expires_at=at + 60,
    )


def known_of(incident: Incident, version: str | None) -> StateTables:
    known = StateTables()
    known.incidents[incident.id] = incident
    if version is not None:
        known.see(msgspec.structs.replace(status(version), flag="rival"))
    return known


@pytest.mark.parametrize(("passed", "waits"), [(BAKE - 1.0, True), (float(BAKE), False)])
def test_a_flag_whose_state_nobody_tells_any_more_is_waited_for_as_long_as_one_that_was_turned_back(
    passed: float, waits: bool
) -> None:
    known = known_of(commanded(at=T - passed), None)
    assert (before(spec(), known, float(T), float(BAKE)) is not None) is waits


def test_a_command_on_a_version_that_somebody_changed_since_is_waited_for_no_longer() -> None:
    just_now = commanded(at=T - 5.0)
    assert before(spec(), known_of(just_now, "g1-x"), float(T), float(BAKE)) is not None
    assert before(spec(), known_of(just_now, "g2-x"), float(T), float(BAKE)) is None


@pytest.mark.parametrize(("passed", "waits"), [(BAKE - 1.0, True), (float(BAKE), False)])
def test_the_next_flag_waits_as_long_where_the_executors_clock_is_behind(passed: float, waits: bool) -> None:
    known = known_of(commanded(at=T - passed), None)
    flipped = status("g2-x", safe=True, changed_at=T - passed - 300.0)
    known.see(msgspec.structs.replace(flipped, flag="rival"))
    assert (before(spec(), known, float(T), float(BAKE)) is not None) is waits


def test_what_led_nowhere_on_an_earlier_version_says_nothing_of_this_one() -> None:
    assert given_up(("production", "rival"), "g1-x", known_of(commanded(), "g1-x"), float(T), float(BAKE)) is not None
    assert given_up(("production", "rival"), "g2-x", known_of(commanded(), "g2-x"), float(T), float(BAKE)) is None


def test_a_refusal_of_an_earlier_sending_frees_no_place() -> None:
    sent_again = msgspec.structs.replace(commanded(), sent="new")
    known = known_of(sent_again, None)
    known.see(msgspec.structs.replace(status("g2-x", safe=True, changed_at=T - 30.0), flag="rival"))
    refused = CommandResult(sent="old", outcome="rejected", at=T - 35.0, command="c", reason=Reason.HALTED)
    known.incident(encode(refused))
    assert beyond_limit(spec(), [("production", spec().flag)], known, float(T), AutomationLimit(1, 600.0)) is not None
    known.incident(encode(msgspec.structs.replace(refused, sent="new", at=T - 34.0)))
    assert beyond_limit(spec(), [("production", spec().flag)], known, float(T), AutomationLimit(1, 600.0)) is None


async def test_a_trigger_of_a_variant_waits_for_nobody() -> None:
    service = Service({"guilty": "obeys", "last": None})
    own = replace(spec(), flag="guilty", condition=parse("error_rate@on > 2% for 20s"))
    others = evidence(of=replace(spec(), flag="last"))
    await service.bench.commander.firing(T, [others, evidence(of=own)])
    assert service.sent("guilty") == [2]


answers = st.sampled_from(
    [
        None,
        "obeys",
        {"reason": Reason.WRONG_STATE},
        {"reason": None},
        {"outcome": "conflict"},
        {"outcome": "ambiguous"},
        {"outcome": "applied"},
        {"reason": Reason.COOLDOWN, "at": 0.0, "retry_at": 45.0},
        {"reason": Reason.COOLDOWN, "at": 0.0, "retry_at": 1e6},
    ]
)


@settings(deadline=None, max_examples=40)
@given(st.lists(answers, min_size=1, max_size=3))
async def test_a_guilty_flag_is_turned_back_in_a_bounded_time_whatever_becomes_of_the_others(rivals: list[Any]) -> None:
    service = Service({"guilty": "obeys", **{f"f{n}": answer for n, answer in enumerate(rivals)}}, guilty="guilty")
    await service.run(1000)
    assert service._status("guilty").safe
    (sent,) = service.sent("guilty")
    assert sent <= 2 + len(rivals) * (BAKE + UNSEEN_AFTER)
