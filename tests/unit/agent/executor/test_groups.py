"""Flags that are made safe together: each has its own outcome, none stops another, and the end of all is told once."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.backends.contract import Outcome
from agent.commands.command import BY_HAND, Cause, Command, Reason, incident_id, sign, verify
from agent.errors import Permission, Transient
from agent.events import cloudevents as events
from agent.executor.result import ExecutionResult
from tests.support.fleet import Fleet
from tests.unit.agent.executor.test_executor import KEY, command

GROUP = {"f0": ["f1", "f2"]}
MEMBERS = ("f0", "f1", "f2")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, 4, 10, groups=GROUP)


def orders(fleet: Fleet) -> list[bytes]:
    """The commands of an incident of the group, as the monitor makes them from what it knows at one time."""
    return [sign(fleet.command(name, of="f0"), KEY) for name in MEMBERS]


async def carry_out(fleet: Fleet) -> list[ExecutionResult]:
    return [await fleet.executor.execute(raw) for raw in orders(fleet)]


def test_a_command_of_a_companion_has_the_incident_of_its_cause() -> None:
    made = command(flag="f1", cause=Cause(flag="f0", flag_version="g7-a"), flag_version="g1-b")
    assert made.incident == incident_id("production", "f0", "g7-a", "errors")
    assert verify(sign(made, KEY), {KEY.id: KEY.public}) == made


@pytest.mark.parametrize("cause", [None, Cause(flag="f0", flag_version="g8-a"), Cause(flag="f3", flag_version="g7-a")])
def test_a_command_whose_incident_is_not_that_of_its_cause_is_refused(cause: Cause | None) -> None:
    made = command(flag="f1", cause=Cause(flag="f0", flag_version="g7-a"))
    checked = verify(sign(replace(made, cause=cause), KEY), {KEY.id: KEY.public})
    assert not isinstance(checked, Command)
    assert checked.reason is Reason.WRONG_ID


async def test_a_companion_must_stand_in_the_group_of_the_flag_that_fired(fleet: Fleet) -> None:
    result = await fleet.flip("f3", of="f0")
    assert result.reason is Reason.WRONG_GROUP
    # Nor is the group turned round: f1 names no companions.
    assert (await fleet.flip("f0", of="f1")).reason is Reason.WRONG_GROUP
    assert fleet.written == []


async def test_every_flag_of_a_group_is_made_safe_and_the_end_is_told_once(fleet: Fleet) -> None:
    results = await carry_out(fleet)
    assert [result.outcome for result in results] == [Outcome.APPLIED] * 3
    assert fleet.written == ["f0", "f1", "f2"]
    await fleet.executor.publish_pending()
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert done.data["flags"] == {"f0": "applied", "f1": "applied", "f2": "applied"}
    assert done.data["partial"] is False
    assert done.data["incident"] == incident_id("production", "f0", "g1-v-on", "errors")
    assert done.subject == "production/f0"


async def test_one_that_cannot_be_read_back_counts_by_its_acknowledgement(fleet: Fleet) -> None:
    fleet.backends["f1"].blind = True
    await carry_out(fleet)
    await fleet.executor.publish_pending()
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert done.data["flags"] == {"f0": "applied", "f1": "applied", "f2": "applied"}
    assert len(fleet.of(events.FLAG_UNVERIFIED)) == 1


async def test_one_that_was_changed_and_one_that_is_safe_stop_no_other(fleet: Fleet) -> None:
    fleet.backends["f0"].edit("beta")
    fleet.backends["f1"].edit("off")
    await carry_out(fleet)
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert done.data["flags"] == {"f0": "conflict", "f1": "already", "f2": "applied"}
    assert done.data["partial"] is True
    assert fleet.backends["f2"].variant == "off"


async def test_a_companion_that_was_safe_already_leaves_the_incident_whole(fleet: Fleet) -> None:
    fleet.backends["f1"].edit("off")
    await carry_out(fleet)
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert (done.data["flags"]["f1"], done.data["partial"]) == ("already", False)


async def test_the_end_waits_for_the_last_flag_and_comes_at_the_latest_when_its_command_expires(fleet: Fleet) -> None:
    fleet.backends["f1"].faults["apply"] = [Permission("403")] * 9
    await carry_out(fleet)
    assert fleet.of(events.INCIDENT_DONE) == []
    fleet.now += 58
    await fleet.executor.publish_pending()
    assert fleet.of(events.INCIDENT_DONE) == []
    fleet.now += 2
    await fleet.executor.publish_pending()
    await fleet.executor.publish_pending()
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert (done.data["flags"]["f1"], done.data["partial"]) == ("expired", True)
    # A kill is never undone by itself.
    assert [fleet.backends[name].variant for name in MEMBERS] == ["off", "on", "off"]


async def test_a_flag_of_which_nobody_knows_is_said_to_be_ambiguous(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, 10, groups=GROUP)
    fleet.backends["f1"].faults["apply"] = [Transient("503")]
    fleet.backends["f1"].faults["verify"] = [Permission("403")]
    await carry_out(fleet)
    fleet.now += 60
    await fleet.executor.publish_pending()
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert done.data["flags"]["f1"] == "ambiguous"


async def test_a_flag_whose_command_never_came_does_not_keep_the_end_from_being_told(fleet: Fleet) -> None:
    for raw in orders(fleet)[:2]:
        await fleet.executor.execute(raw)
    fleet.now += 60
    await fleet.executor.publish_pending()
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert done.data["flags"] == {"f0": "applied", "f1": "applied", "f2": "expired"}


async def test_a_flag_that_was_refused_is_said_to_be_rejected_and_the_end_does_not_wait_for_it(fleet: Fleet) -> None:
    made = orders(fleet)
    await fleet.executor.execute(made[0])
    with fleet.automation.locked():
        fleet.automation.halt("maintenance", by="ann", at=fleet.now)
    for raw in made[1:]:
        assert (await fleet.executor.execute(raw)).reason is Reason.HALTED
    (done,) = fleet.of(events.INCIDENT_DONE)
    assert done.data["flags"] == {"f0": "applied", "f1": "rejected", "f2": "rejected"}
    assert done.data["partial"] is True


async def test_what_began_before_a_crash_ends_after_it_and_is_told_once(fleet: Fleet) -> None:
    made = orders(fleet)
    await fleet.executor.execute(made[0])
    reborn = fleet.reborn()
    await reborn.executor.recover()
    for raw in made:
        await reborn.executor.execute(raw)
    again = reborn.reborn()
    await again.executor.recover()
    for raw in made:
        await again.executor.execute(raw)
    told = [event for process in (fleet, reborn, again) for event in process.of(events.INCIDENT_DONE)]
    assert [event.data["flags"] for event in told] == [{"f0": "applied", "f1": "applied", "f2": "applied"}]


async def test_an_incident_that_expired_while_nobody_was_there_is_told_at_the_start(fleet: Fleet) -> None:
    fleet.backends["f1"].faults["apply"] = [Permission("403")] * 9
    for raw in orders(fleet)[:2]:
        await fleet.executor.execute(raw)
    reborn = fleet.reborn()
    reborn.now += 1000
    for process in (reborn, reborn.reborn()):
        await process.executor.recover()
        await process.executor.publish_pending()
        told = [event.data["flags"] for event in process.of(events.INCIDENT_DONE)]
        assert told == ([{"f0": "applied", "f1": "expired", "f2": "expired"}] if process is reborn else [])


async def test_an_incident_of_one_flag_is_not_taken_for_that_of_a_group_which_was_configured_later(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, 3, 10)
    await fleet.flip("f0")
    later = Fleet(tmp_path, 3, 10, groups=GROUP, now=2000.0)
    await later.executor.recover()
    await later.executor.publish_pending()
    assert later.of(events.INCIDENT_DONE) == []


async def test_commands_that_are_delivered_again_after_the_end_tell_it_no_second_time(fleet: Fleet) -> None:
    made = orders(fleet)
    for raw in [*made, *made]:
        await fleet.executor.execute(raw)
    assert len([event for event in fleet.told if event.type == events.INCIDENT_DONE]) == 1


async def test_an_incident_of_one_flag_ends_with_its_flag(fleet: Fleet) -> None:
    await fleet.flip("f3")
    assert fleet.of(events.INCIDENT_DONE) == []


async def test_what_a_person_orders_is_one_flag_by_one(fleet: Fleet) -> None:
    assert (await fleet.flip("f0", trigger=BY_HAND)).outcome is Outcome.APPLIED
    assert (await fleet.flip("f1", of="f0", trigger=BY_HAND)).reason is Reason.WRONG_GROUP
    fleet.now += 100
    await fleet.executor.publish_pending()
    assert fleet.of(events.INCIDENT_DONE) == []
