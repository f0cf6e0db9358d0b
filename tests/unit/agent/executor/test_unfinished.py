"""What has no outcome yet is bounded: in what is told, in the ledger, in time; and what came to nothing says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backends.contract import Cas, Outcome
from agent.commands.command import Reason
from agent.errors import Auth, BackendError, LedgerError, Permission, Throttled, Transient, Unsent
from agent.events import cloudevents as events
from agent.events.wording import sentence
from agent.executor.ambiguity import GIVE_UP_S, REMIND_S, AmbiguityStep, AmbiguousWrites
from agent.ledger.entry import Entry, Opened
from agent.ledger.ledger import Ledger
from tests.support.fake_backend import FakeBackend, Fault
from tests.support.fleet import Fleet
from tests.support.pace import Pace, Time
from tests.unit.agent.executor.test_executor import DONE, Desk, command, signed
from tests.unit.agent.ledger.test_ledger import SNAPSHOT, event, opened

LOST: dict[str, list[str | BackendError]] = {
    "apply": [Transient("connection reset")],
    "verify": [Auth("the token was withdrawn")] * 100_000,
}


def lost(desk: Desk) -> None:
    """The answer to the write is lost, and the read-back fails until the faults are cleared."""
    desk.backend.faults.update({name: [*faults] for name, faults in LOST.items()})


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.jsonl"))


async def test_a_doubt_that_lasts_is_told_when_it_begins_now_and_then_and_when_it_is_given_up(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    lost(desk)
    sizes, results = [], []
    for _ in range(500):
        results.append(await desk.execute(signed()))
        sizes.append(size(tmp_path))
        if results[-1].final:
            break
        desk.now += 10.0
    told = [event for event in desk.told if event.type == events.FLAG_AMBIGUOUS]
    assert len(told) == len({event.id for event in told}) == GIVE_UP_S / REMIND_S
    assert desk.types[-1] == events.FLAG_UNRESOLVED
    assert "the token was withdrawn; look at the flag" in sentence(desk.told[-1])
    assert sizes[-1] < sizes[0] + 10_000
    # Settled: neither the next start nor the same command asks the backend again.
    asked = len(desk.backend.calls)
    reborn = Desk(tmp_path, desk.backend)
    reborn.now = desk.now
    assert await reborn.executor.recover() == []
    assert len(desk.backend.calls) == asked


async def test_what_ends_a_doubt_is_told_as_the_outcome_that_it_has(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [Fault.DROP_AFTER]
    desk.backend.faults["verify"] = [Auth("withdrawn")] * 3
    for _ in range(4):
        result = await desk.execute(signed())
        desk.now += 30.0
    assert (result.outcome, desk.backend.writes) == (Outcome.APPLIED, ["off"])
    assert desk.types == [*DONE[:2], events.FLAG_AMBIGUOUS, *DONE[2:]]


async def test_a_flag_whose_write_was_given_up_is_flipped_by_a_fresh_command(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    lost(desk)
    await desk.execute(signed())
    desk.now += GIVE_UP_S
    assert (await desk.execute(signed())).final
    desk.backend.faults.clear()
    result = await desk.execute(signed(issued_at=desk.now))
    assert (result.outcome, desk.backend.writes) == (Outcome.APPLIED, ["off"])
    # Its steps are events of their own.
    assert len({event.id for event in desk.told}) == len(desk.told)
    assert (await desk.execute(signed(issued_at=desk.now))).outcome is Outcome.DUPLICATE
    found = Ledger(tmp_path).get(command().id)
    assert found is not None
    assert found.round == 1


async def test_a_flag_whose_confirmed_write_was_given_up_is_left_to_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pace(monkeypatch, Time(tries=3))
    desk = Desk(tmp_path)
    lost(desk)
    desk.backend.faults["apply"] = [Fault.LIE]
    await desk.execute(signed())
    assert events.FLAG_WRITTEN in desk.types
    desk.now += GIVE_UP_S
    assert (await desk.execute(signed())).final
    assert desk.types[-1] == events.FLAG_UNRESOLVED
    desk.backend.faults.clear()
    assert (await desk.execute(signed(issued_at=desk.now))).outcome is Outcome.DUPLICATE
    assert desk.backend.writes == []


@pytest.mark.parametrize("error", [Throttled("slow down", 99.0), Permission("403"), Unsent("refused")])
async def test_an_attempt_that_has_certainly_failed_is_no_doubt_however_often_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BackendError
) -> None:
    Pace(monkeypatch, Time(tries=3))
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [error] * 100_000
    sizes = []
    for _ in range(4):
        result = await desk.execute(signed())
        assert (result.outcome, result.final) == (Outcome.REJECTED, False)
        sizes.append(size(tmp_path))
    assert events.FLAG_AMBIGUOUS not in desk.types
    assert desk.types.count(events.INABILITY) == 1
    assert len(set(sizes[1:])) == 1
    desk.backend.faults.clear()
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED


async def test_two_commands_that_fail_in_turn_are_told_of_once_each(desk: Desk) -> None:
    desk.backend.faults["snapshot"] = [Permission("403")] * 6
    for _ in range(3):
        for trigger in ("errors", "slow"):
            await desk.execute(signed(trigger=trigger))
    assert desk.types == [events.INABILITY] * 2


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ledger")


async def test_what_expired_unwritten_is_settled_at_the_start_without_asking_a_backend(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [Throttled("slow down", 99.0)]
    await desk.execute(signed())
    reborn = Desk(tmp_path, FakeBackend())
    reborn.now = 1001.0 + 86_400
    assert await reborn.executor.recover() == []
    assert reborn.backend.calls == []
    assert reborn.types == [events.FLAG_NOT_WRITTEN]
    assert [entry.settled for entry in Ledger(tmp_path).entries()] == [True]


async def test_a_flag_that_a_person_turned_off_is_never_taken_for_a_flip_that_was_not_made(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [Throttled("slow down", 99.0)]
    await desk.execute(signed())
    desk.backend.edit("off")
    for after in (10.0, 3600.0):
        reborn = Desk(tmp_path, desk.backend)
        reborn.now = 1001.0 + after
        await reborn.executor.recover()
        assert events.FLAG_WRITTEN not in reborn.types
    assert Ledger(tmp_path).flips("production", "new-checkout") == []


@pytest.mark.parametrize("cas", list(Cas))
async def test_a_write_that_a_crash_left_open_is_found_after_it_failed_for_certain_before(
    tmp_path: Path, cas: Cas
) -> None:
    desk = Desk(tmp_path, FakeBackend(cas=cas))
    desk.backend.faults["apply"] = [Permission("403")]
    await desk.execute(signed())

    class Crash(BaseException):
        pass

    async def die(*_: object) -> None:
        raise Crash

    # The second attempt is written, and the process dies before it can note that.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.executor._attempts, "_written", die)
        with pytest.raises(Crash):
            await desk.execute(signed())
    assert desk.backend.writes == ["off"]
    reborn = Desk(tmp_path, desk.backend)
    await reborn.executor.recover()
    assert reborn.types[-2:] == [events.FLAG_WRITTEN, events.FLAG_VERIFIED]


async def test_an_entry_of_a_flag_that_is_not_managed_any_more_is_settled_and_a_person_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    lost(desk)
    await desk.execute(signed())
    reborn = Desk(tmp_path, desk.backend)
    reborn.executor._allowed._flags.clear()
    assert await reborn.executor.recover() == []
    assert reborn.types[-1] == events.FLAG_UNRESOLVED


async def test_what_reads_as_before_long_after_it_expired_was_not_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    lost(desk)
    await desk.execute(signed())
    desk.backend.faults.clear()
    desk.now = command().expires_at + 1.0
    result = await desk.execute(signed())
    # A write may be on its way yet.
    assert (result.reason, result.final) == (Reason.EXPIRED, False)
    desk.now = command().expires_at + 60.0
    assert (await desk.execute(signed())).final
    assert "expired" in desk.told[-2].data["detail"]
    assert desk.types[-2:] == [events.FLAG_NOT_WRITTEN, events.COMMAND_REJECTED]
    assert desk.backend.writes == []


async def test_a_new_command_does_not_wait_for_what_an_earlier_process_left_open(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, 3)
    for name in ("f0", "f1"):
        fleet.backends[name].faults["verify"] = [Auth("withdrawn"), *[Fault.HANG] * 100]
        await fleet.flip(name)
    reborn = fleet.reborn()
    recovering = asyncio.create_task(reborn.executor.recover())
    while not all(fleet.backends[name].calls.count("verify") == 2 for name in ("f0", "f1")):
        await asyncio.sleep(0)
    assert (await reborn.flip("f2")).outcome is Outcome.APPLIED
    assert not recovering.done()
    recovering.cancel()
    await asyncio.wait([recovering])


@settings(max_examples=200)
@given(steps=st.lists(st.tuples(st.floats(0, 400), st.floats(-1e6, 1e6)), min_size=1, max_size=80))
def test_a_doubt_comes_to_an_end_whatever_the_clock_does(steps: list[tuple[float, float]]) -> None:
    """`steps`: how long until the next attempt, and by how much the wall clock is set meanwhile."""
    mono, wall = 0.0, 1e6
    ambiguous = AmbiguousWrites(lambda: mono)
    said: list[float] = []

    entry = Entry(Opened(command=command(), raw=b"", snapshot=SNAPSHOT), [])
    for pause, step in steps:
        due = ambiguous.step_due(entry, wall)
        if due is AmbiguityStep.UNRESOLVED:
            return
        if due is AmbiguityStep.AMBIGUOUS:
            said.append(mono)
            entry.events.append(event(events.FLAG_AMBIGUOUS, wall))
        # Reminders by this process's clock, or as far as the wall clock was set forward.
        assert not said or mono - said[-1] <= REMIND_S + 400
        assert mono < GIVE_UP_S + 400
        mono, wall = mono + pause, wall + pause + step


async def test_where_the_mark_cannot_be_written_a_second_attempt_is_not_made(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.backend.faults["apply"] = [Permission("403")]
    await desk.execute(signed())

    def full(*_: object) -> None:
        raise LedgerError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "mark", full)
        result = await desk.execute(signed())
    assert (result.outcome, result.final, desk.backend.writes) == (Outcome.REJECTED, False, [])


def test_whether_a_write_may_have_been_sent_is_changed_in_place_and_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entry = opened(ledger)
    (path,) = tmp_path.glob("*.jsonl")
    sizes = set()
    for state in ("never", "maybe") * 20:
        ledger.mark(entry, state)
        sizes.add(path.stat().st_size)
        found = Ledger(tmp_path).get(entry.command.id)
        assert found is not None
        assert found.unwritten == (state == "never")
        assert found.events == entry.events
    assert len(sizes) == 1
