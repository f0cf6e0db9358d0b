"""What a result and the steps of a command say of the flag, of the time, and of who was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.backends.contract import FlagRef, Outcome
from agent.commands.command import Reason
from agent.errors import Auth, Permission
from agent.events import cloudevents as events
from agent.executor.untrusted import BURST, Untrusted
from agent.state.flags import FlagStatus
from tests.support.fake_backend import FakeBackend, Fault
from tests.support.fleet import Fleet
from tests.unit.agent.executor.test_executor import DONE, EVIDENCE, REF, Desk, by_hand, command, signed


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ledger")


def between(desk: Desk, operation: str, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `work` be done whenever the backend begins an operation."""
    original = desk.backend._begin

    async def begin(name: str, ref: FlagRef, deadline: float) -> str | None:
        fault = await original(name, ref, deadline)
        if name == operation:
            work()
        return fault

    monkeypatch.setattr(desk.backend, "_begin", begin)


def later(desk: Desk, seconds: float) -> Callable[[], None]:
    def wait() -> None:
        desk.now += seconds

    return wait


def seen(version: str, variant: str, at: float, changed_at: float | None = None) -> FlagStatus:
    return FlagStatus(
        flag=REF.flag,
        environment=REF.environment,
        version=version,
        variant=variant,
        safe=variant == "off",
        at=at,
        changed_at=changed_at,
    )


async def test_the_refusal_of_an_expired_command_names_it(desk: Desk) -> None:
    desk.now = command().expires_at
    result = await desk.execute(signed())
    assert (result.reason, result.command) == (Reason.EXPIRED, command())


async def test_a_result_has_the_flag_as_it_was_last_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    between(desk, "verify", later(desk, 0.25), monkeypatch)
    flipped = seen("g2-v-off", "off", 1001.25, 1001.0)
    result = await desk.execute(signed())
    assert result.status == flipped
    assert result.command == command()
    again = await desk.execute(signed())
    assert (again.outcome, again.status, again.command) == (Outcome.DUPLICATE, flipped, command())
    # What a person reads of it: how it ended, and when.
    assert f"{events.FLAG_VERIFIED} at 1001.250" in again.detail
    desk.now = 1005.0
    already = await desk.execute(signed(trigger="slow"))
    assert (already.outcome, already.status) == (Outcome.ALREADY, seen("g2-v-off", "off", 1005.0, 1001.0))
    assert already.command == command(trigger="slow")
    assert "safe" in already.detail


async def test_a_conflict_has_the_flag_as_a_person_left_it(desk: Desk) -> None:
    desk.backend.edit("beta")
    result = await desk.execute(signed())
    assert (result.outcome, result.command) == (Outcome.CONFLICT, command())
    assert result.status == seen("g1-v-beta", "beta", 1001.0)
    assert "g1-v-beta" in result.detail
    assert "g1-v-on" in result.detail


async def test_an_edit_in_the_middle_of_a_flip_is_one_new_version(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    between(desk, "apply", lambda: desk.backend.edit("beta"), monkeypatch)
    result = await desk.execute(signed())
    assert (result.outcome, result.command) == (Outcome.CONFLICT, command())
    assert result.status == seen("g2-v-beta", "beta", 1001.0, 1001.0)
    conflict = desk.told[-1]
    assert (conflict.data["variant"], conflict.data["flag_version"]) == ("beta", "g2-v-beta")
    assert conflict.data["expected"] == "g1-v-on"


async def test_each_step_has_its_time_and_the_last_one_how_long_all_took(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for operation, seconds in (("snapshot", 1.0), ("apply", 0.5), ("verify", 0.2500004)):
        between(desk, operation, later(desk, seconds), monkeypatch)
    await desk.execute(signed())
    assert [(event.type, event.time) for event in desk.told] == list(
        zip(DONE, [1001.0, 1001.0, 1002.5, 1002.75], strict=True)
    )
    # To the microsecond.
    assert desk.told[-1].data["took_s"] == 1.75
    assert [event.data.get("flag_version") for event in desk.told] == [None, "g1-v-on", "g2-v-off", "g2-v-off"]
    assert [event.data.get("variant") for event in desk.told] == [None, "on", "off", "off"]


async def test_what_cannot_be_read_back_is_on_record_with_its_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.backend.blind = True
    between(desk, "verify", later(desk, 0.25), monkeypatch)
    result = await desk.execute(signed())
    assert (result.outcome, result.command, result.status) == (Outcome.APPLIED, command(), None)
    assert (desk.told[-1].type, desk.told[-1].data["took_s"]) == (events.FLAG_UNVERIFIED, 0.25)


async def test_a_flag_that_somebody_else_made_safe_meanwhile_is_found_safe(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    between(desk, "apply", lambda: desk.backend.edit("off"), monkeypatch)
    result = await desk.execute(signed())
    assert (result.outcome, desk.backend.writes) == (Outcome.ALREADY, [])
    assert (desk.told[-1].type, desk.told[-1].data["flag_version"]) == (events.FLAG_ALREADY, "g2-v-off")


async def test_what_could_not_be_done_says_of_which_command_and_why(desk: Desk) -> None:
    for operation, problem in (("snapshot", "401"), ("apply", "403")):
        desk.backend.faults[operation] = [Permission(problem)]
        result = await desk.execute(signed())
        assert (result.detail, result.command, result.reason) == (problem, command(), None)
    assert [(event.data["reason"], event.time) for event in desk.told if event.type == events.INABILITY] == [
        ("401", 1001.0),
        ("403", 1001.0),
    ]


async def test_a_doubt_says_what_the_write_and_the_read_back_said(desk: Desk) -> None:
    desk.backend.faults["apply"] = [Fault.DROP_AFTER]
    desk.backend.faults["verify"] = [Auth("withdrawn")]
    result = await desk.execute(signed())
    assert (result.outcome, result.detail) == (Outcome.AMBIGUOUS, "withdrawn; connection reset")
    assert result.command == command()
    assert (desk.told[-1].type, desk.told[-1].data["detail"]) == (events.FLAG_AMBIGUOUS, result.detail)


async def test_of_bytes_that_nobody_signed_few_are_told_and_all_are_refused(desk: Desk) -> None:
    mono = [0.0]
    desk.executor._untrusted = Untrusted(lambda: mono[0])
    for _ in range(int(BURST) + 3):
        result = await desk.execute(b"garbage")
        assert (result.outcome, result.reason) == (Outcome.REJECTED, Reason.MALFORMED)
        assert "7 bytes" in result.detail
    assert len(desk.told) == BURST
    assert [event.time for event in desk.told] == [1001.0] * int(BURST)
    assert "suppressed" not in desk.told[-1].data
    mono[0] = 1.0
    await desk.execute(b"garbage")
    assert desk.told[-1].data["suppressed"] == 3


async def test_a_command_that_is_refused_is_told_with_its_time_and_bytes(desk: Desk) -> None:
    result = await desk.execute(signed(target="on"))
    assert result.command == command(target="on")
    (told,) = desk.told
    assert (told.type, told.time, told.data["command_id"]) == (
        events.COMMAND_REJECTED,
        1001.0,
        command(target="on").id,
    )
    # The same command signed anew is another refusal.
    await desk.execute(signed(target="on", issued_at=1000.5))
    assert desk.told[0].id != desk.told[1].id


async def test_a_hanging_backend_of_one_flag_holds_up_no_other(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 2)
    fleet.backends["f0"].faults["snapshot"] = [Fault.HANG]
    flip = asyncio.create_task(fleet.flip("f0"))
    while not fleet.backends["f0"].calls:
        await asyncio.sleep(0)
    assert (await fleet.flip("f1")).outcome is Outcome.APPLIED
    flip.cancel()
    await asyncio.wait([flip])


async def test_a_look_that_another_flip_overtook_is_made_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.executor.read_flag(REF.flag, REF.environment)
    done: list[None] = []

    def overtake() -> None:
        if not done:
            done.append(None)
            # Another executor publishes its flip; the answer that is on its way is of before.
            desk.watch.prime(seen("g2-v-off", "off", 1001.0, 1001.0))
        else:
            desk.backend.variant = "off"

    between(desk, "read", overtake, monkeypatch)
    found = await desk.executor.read_flag(REF.flag, REF.environment)
    assert (found.version, desk.backend.calls) == ("g2-v-off", ["read"] * 3)


async def test_a_look_says_when_it_was_and_of_a_flag_that_is_not_managed_nothing(desk: Desk) -> None:
    desk.now = 1234.0
    assert (await desk.executor.read_flag(REF.flag, REF.environment)).at == 1234.0
    with pytest.raises(KeyError):
        await desk.executor.read_flag("other", REF.environment)


async def test_who_halted_can_be_asked(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    assert await fleet.executor.halted() is None
    await fleet.flip("f0")
    refused = await fleet.flip("f1")
    assert refused.reason is Reason.HALTED
    assert await fleet.executor.halted() == refused.detail
    assert refused.command == fleet.command("f1")


async def test_an_executor_of_another_ledger_takes_a_flag_that_is_safe_for_done(tmp_path: Path) -> None:
    backend = FakeBackend()
    assert (await Desk(tmp_path / "one", backend).execute(signed())).outcome is Outcome.APPLIED
    other = Desk(tmp_path / "two", backend)
    assert (await other.execute(signed())).outcome is Outcome.ALREADY
    assert backend.writes == ["off"]


async def test_an_order_that_comes_after_the_end_adds_no_step(desk: Desk) -> None:
    assert (await desk.execute(by_hand("ann", "customers call", 1000.0))).outcome is Outcome.APPLIED
    assert (await desk.execute(by_hand("bob", "still broken", 1000.5))).outcome is Outcome.DUPLICATE
    (entry,) = desk.ledger.entries()
    assert [event.type for event in entry.events] == DONE


async def test_a_trigger_that_sends_again_what_is_not_done_adds_no_step(desk: Desk) -> None:
    desk.backend.faults["apply"] = [Fault.DROP_AFTER]
    desk.backend.faults["verify"] = [Auth("withdrawn")] * 2
    for value in (0.2, 0.3):
        evidence = replace(EVIDENCE, value=value)
        assert (await desk.execute(signed(evidence=evidence))).outcome is Outcome.AMBIGUOUS
    assert desk.types.count(events.COMMAND_RECEIVED) == 1
