"""A write: none when the time is up, and whatever its answer is, what counts is the read-back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent.backends.contract import Cas, FlagRef, Outcome, ReadBack, Snapshot, Verdict, WriteResult
from agent.errors import Conflict, Transient, Unsent
from agent.events import cloudevents as events
from agent.events.wording import sentence
from agent.executor.budget import Budget
from agent.executor.flip import Flip
from tests.support.fake_backend import FakeBackend, Fault
from tests.unit.agent.executor.test_executor import DONE, REF, Desk, command, signed


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_when_the_time_is_up_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()
    snapshot = await backend.snapshot(REF, deadline=0.0)

    async def written(*_: object) -> None:
        pytest.fail("nothing was")

    async def may_write() -> bool:
        return True

    flip = Flip(backend, command(), snapshot, written, acknowledged=False, certain=True)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    with pytest.raises(Unsent, match="time was up before the write"):
        await flip.settle(Budget(100.0, 1.0), may_write)
    assert not flip.may_have_written
    assert backend.calls == ["snapshot"]


async def test_when_the_time_is_up_before_a_retry_the_cause_stays_what_stopped_the_try_before() -> None:
    backend = FakeBackend()
    snapshot = await backend.snapshot(REF, deadline=0.0)
    backend.faults["apply"] = [Unsent("No space left on device")]

    async def written(*_: object) -> None:
        pytest.fail("nothing was")

    async def may_write() -> bool:
        return True

    flip = Flip(backend, command(), snapshot, written, acknowledged=False, certain=True)
    for budget in (Budget.of(60.0), Budget(time.monotonic(), 1.0)):
        with pytest.raises(Unsent, match="No space left on device"):
            await flip._attempt(budget, may_write)
    assert backend.calls == ["snapshot", "apply"]
    assert not flip.may_have_written


async def test_a_write_that_did_not_land_says_so() -> None:
    backend = FakeBackend()
    snapshot = await backend.snapshot(REF, deadline=0.0)
    backend.faults["apply"] = [Transient("503")]

    async def nothing(*_: object) -> None:
        pass

    async def may_write() -> bool:
        return True

    flip = Flip(backend, command(), snapshot, nothing, acknowledged=False, certain=True)
    with pytest.raises(Transient, match="did not land"):
        await flip._attempt(Budget.of(60.0), may_write)
    assert (flip.may_have_written, flip.detail) == (True, "503")


async def test_a_conflict_that_leaves_the_flag_untouched_is_written_again(desk: Desk) -> None:
    desk.backend.faults["apply"] = [Conflict("the template was edited")]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.calls == ["snapshot", "apply", "verify", "apply", "verify"]
    assert desk.types == DONE


async def test_a_conflict_with_a_person_is_the_end_and_has_the_backends_words(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = desk.backend._begin

    async def edit_first(name: str, ref: FlagRef, deadline: float) -> str | None:
        if name == "apply":
            desk.backend.edit("beta")
        return await original(name, ref, deadline)

    monkeypatch.setattr(desk.backend, "_begin", edit_first)
    desk.backend.faults["apply"] = [Conflict("version 7 was expected")]
    result = await desk.execute(signed())
    assert (result.outcome, result.detail) == (Outcome.CONFLICT, "version 7 was expected")
    assert desk.backend.variant == "beta"


@pytest.mark.parametrize("landed", [True, False])
async def test_an_answer_that_leaves_it_open_is_settled_by_the_read_back(
    tmp_path: Path, landed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, FakeBackend(cas=Cas.NONE))
    original = desk.backend._write

    async def vague(*arguments: object) -> WriteResult:
        if landed:
            await original(*arguments)  # type: ignore[arg-type]
        return WriteResult(Outcome.AMBIGUOUS, None, "accepted for later")

    monkeypatch.setattr(desk.backend, "_write", vague)
    result = await desk.execute(signed())
    # What was accepted may land yet: without compare-and-set a second write is not safe.
    assert result.outcome is (Outcome.APPLIED if landed else Outcome.AMBIGUOUS)
    assert desk.types[2] == (events.FLAG_WRITTEN if landed else events.FLAG_AMBIGUOUS)
    assert "accepted for later" in sentence(desk.told[2])


async def test_a_write_that_was_found_by_reading_says_what_became_of_its_answer(desk: Desk) -> None:
    desk.backend.faults["apply"] = [Fault.DROP_AFTER]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.types == DONE
    assert "connection reset" in sentence(desk.told[2])
    assert (desk.told[2].data["version"], desk.told[2].data["flag_version"]) == ("v-off", "g2-v-off")


class Forgetful(FakeBackend):
    """It cannot tell whether a flag that reads as before was changed and changed back."""

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        found = await super().verify(snapshot, target, op_id=op_id, deadline=deadline)
        as_before = found.state == snapshot.state
        return ReadBack(Verdict.AS_BEFORE, found.state) if as_before else found


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_what_reads_as_before_is_written_unless_a_write_is_on_record(acknowledged: bool) -> None:
    """A write that is on record was taken back by a person, one that is not was never made."""
    backend = Forgetful()
    snapshot = await backend.snapshot(REF, deadline=0.0)

    async def nothing(*_: object) -> None:
        pass

    async def may_write() -> bool:
        return True

    flip = Flip(backend, command(), snapshot, nothing, acknowledged=acknowledged, certain=False)
    outcome, state = await flip.settle(Budget.of(60.0), may_write)
    assert outcome is (Outcome.CONFLICT if acknowledged else Outcome.APPLIED)
    assert backend.writes == ([] if acknowledged else ["off"])
    assert state is not None
    assert state.variant == backend.variant
    assert flip.detail == ""
