"""The contract suite: what `agent.backends.contract` promises, for every backend.

For a new backend, add a `Place` in tests/support/places.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.backends.contract import Cas, FlagBackend, Outcome, Snapshot, Verdict
from agent.errors import Invalid, NotFound, Timeout, Unsent, Unsupported
from tests.support.places import ABSENT, PLACES, REF, Place, live
from tests.support.places import place as at_place

OP = ""


@pytest.fixture(autouse=True)
def operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation id of its own for each test: a real project remembers those of earlier tests."""
    monkeypatch.setitem(globals(), "OP", str(uuid.uuid4()))


@pytest.fixture(params=[*PLACES, *live.kinds()])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with at_place(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def backend(place: Place) -> FlagBackend:
    return place.backend


def soon() -> float:
    return time.monotonic() + 60


async def snapshot(backend: FlagBackend) -> Snapshot:
    return await backend.snapshot(REF, deadline=soon())


async def apply(backend: FlagBackend, expect: str, target: str = "off") -> Outcome:
    return (await backend.apply(REF, target, expect=expect, op_id=OP, deadline=soon())).outcome


async def restore(backend: FlagBackend, snap: Snapshot, expect: str) -> Outcome:
    return (await backend.restore(snap, expect=expect, op_id=OP, deadline=soon())).outcome


async def variant(backend: FlagBackend) -> str | None:
    return (await backend.read(REF, deadline=soon())).variant


async def test_a_flag_is_read_as_it_is(place: Place, backend: FlagBackend) -> None:
    first = await backend.read(REF, deadline=soon())
    assert (first.variant, first.percent) == ("on", None)
    assert await backend.read(REF, deadline=soon()) == first
    await place.edit("off")
    second = await backend.read(REF, deadline=soon())
    assert second.variant == "off"
    assert second.version != first.version


async def test_a_write_on_the_expected_version_makes_the_flag_safe_for_all(backend: FlagBackend) -> None:
    before = await snapshot(backend)
    result = await backend.apply(REF, "off", expect=before.state.version, op_id=OP, deadline=soon())
    assert result.outcome is Outcome.APPLIED
    assert result.state == await backend.read(REF, deadline=soon())
    assert result.state is not None
    assert result.state.variant == "off"


async def test_a_write_on_another_version_changes_nothing(place: Place, backend: FlagBackend) -> None:
    if backend.capabilities.cas is Cas.NONE:
        pytest.skip("this backend compares nothing")
    before = await place.content()
    assert await apply(backend, "stale") is Outcome.CONFLICT
    assert await place.content() == before


async def test_the_same_operation_again_changes_nothing(place: Place, backend: FlagBackend) -> None:
    version = (await snapshot(backend)).state.version
    assert await apply(backend, version) is Outcome.APPLIED
    after = await place.content()
    assert await apply(backend, version) in (Outcome.ALREADY, Outcome.DUPLICATE)
    assert await place.content() == after


async def test_of_many_writes_on_one_version_one_lands(backend: FlagBackend) -> None:
    if backend.capabilities.cas is Cas.NONE:
        pytest.skip("this backend compares nothing")
    version = (await snapshot(backend)).state.version
    outcomes = await asyncio.gather(*(apply(backend, version) for _ in range(16)))
    assert outcomes.count(Outcome.APPLIED) == 1
    assert set(outcomes) <= {Outcome.APPLIED, Outcome.ALREADY, Outcome.DUPLICATE, Outcome.CONFLICT}


async def test_an_edit_to_another_flag_does_not_stop_a_write(place: Place, backend: FlagBackend) -> None:
    version = (await snapshot(backend)).state.version
    await place.edit_other_flag()
    assert await apply(backend, version) is Outcome.APPLIED


async def test_an_edit_to_another_flag_is_no_reason_to_leave_this_one_alone(place: Place, backend: FlagBackend) -> None:
    snap = await snapshot(backend)
    await place.edit_other_flag()
    found = await backend.verify(snap, "off", op_id=OP, deadline=soon())
    assert found.verdict in (Verdict.UNTOUCHED, Verdict.AS_BEFORE)
    assert await apply(backend, snap.state.version) is Outcome.APPLIED
    assert (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.LANDED


async def test_a_target_that_the_flag_does_not_have_is_invalid(place: Place, backend: FlagBackend) -> None:
    version, before = (await snapshot(backend)).state.version, await place.content()
    with pytest.raises(Invalid):
        await apply(backend, version, "absent")
    assert await place.content() == before


async def test_an_unknown_flag_is_not_found(place: Place, backend: FlagBackend) -> None:
    before = await place.content()
    with pytest.raises(NotFound):
        await backend.read(ABSENT, deadline=soon())
    with pytest.raises(NotFound):
        await backend.snapshot(ABSENT, deadline=soon())
    with pytest.raises(NotFound):
        await backend.apply(ABSENT, "off", expect="any", op_id=OP, deadline=soon())
    assert await place.content() == before


async def test_what_begins_after_its_deadline_ends_at_once_and_writes_nothing(
    place: Place, backend: FlagBackend
) -> None:
    snap, before, late = await snapshot(backend), await place.content(), time.monotonic() - 1
    for late_call in (
        backend.read(REF, deadline=late),
        backend.snapshot(REF, deadline=late),
        backend.apply(REF, "off", expect=snap.state.version, op_id=OP, deadline=late),
        backend.verify(snap, "off", op_id=OP, deadline=late),
        backend.restore(snap, expect=snap.state.version, op_id=OP, deadline=late),
        backend.health([(REF, "off")], deadline=late),
    ):
        with pytest.raises((Timeout, Unsent)):
            await late_call
    # If a late call had been sent nevertheless, it would have been served before this one.
    assert await variant(backend) == "on"
    assert await place.content() == before


async def test_a_read_back_tells_whether_the_operation_landed(place: Place, backend: FlagBackend) -> None:
    snap = await snapshot(backend)

    async def verdict() -> Verdict:
        return (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict

    assert await verdict() is Verdict.UNTOUCHED
    await apply(backend, snap.state.version)
    assert await verdict() is Verdict.LANDED
    await place.edit("on")
    assert await verdict() is Verdict.OTHER


async def test_a_snapshot_that_was_stored_restores_the_flag(place: Place, backend: FlagBackend) -> None:
    before = await place.content()
    stored = msgspec.json.encode(await snapshot(backend))
    snap = msgspec.json.decode(stored, type=Snapshot)
    await apply(backend, snap.state.version)
    written = (await backend.read(REF, deadline=soon())).version
    assert await restore(backend, snap, written) is Outcome.APPLIED
    assert await place.content() == before
    assert await restore(backend, snap, written) is Outcome.ALREADY


async def test_a_flag_that_changed_since_the_flip_is_not_restored(place: Place, backend: FlagBackend) -> None:
    snap = await snapshot(backend)
    await apply(backend, snap.state.version)
    written = (await backend.read(REF, deadline=soon())).version
    await place.edit("beta")
    edited = await place.content()
    assert await restore(backend, snap, written) is Outcome.CONFLICT
    assert await place.content() == edited


async def test_a_percentage_is_set_or_declared_to_be_unsupported(backend: FlagBackend) -> None:
    async def share(percent: float) -> Outcome:
        version = (await backend.read(REF, deadline=soon())).version
        return (await backend.set_percent(REF, "on", "off", percent, expect=version, op_id=OP, deadline=soon())).outcome

    if not backend.capabilities.percent:
        with pytest.raises(Unsupported):
            await share(10)
        return
    assert await share(10) is Outcome.APPLIED
    state = await backend.read(REF, deadline=soon())
    assert (state.variant, state.percent) == (None, 10)
    assert await share(10) is Outcome.ALREADY
    assert await apply(backend, state.version) is Outcome.APPLIED
    assert await variant(backend) == "off"


async def test_health_says_what_would_stop_a_flip_and_writes_nothing(place: Place, backend: FlagBackend) -> None:
    before = await place.content()
    assert (await backend.health([(REF, "off")], deadline=soon())).ok
    health = await backend.health([(REF, "off"), (REF, "gone"), (ABSENT, "off")], deadline=soon())
    assert len(health.problems) == 2
    assert "gone" in health.problems[0]
    assert "absent" in health.problems[1]
    assert await place.content() == before
