"""The least time between flips: exact, common to all processes of a ledger, and no hostage of a wrong clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.backends.contract import Outcome
from agent.commands.command import Reason
from agent.commands.expiry import CLOCK_SKEW_S
from agent.events.cloudevents import FLAG_SNAPSHOT, FLAG_WRITTEN
from agent.executor.cooldown import Cooldown
from agent.ledger.ledger import Ledger
from tests.unit.agent.executor.test_executor import COOLDOWN, REF, Desk, signed
from tests.unit.agent.ledger.test_ledger import SNAPSHOT, command, event

DAY = 86_400.0


def flipped(ledger: Ledger, *times: float) -> None:
    for at in times:
        entry, _ = ledger.open(command(f"t{at}", REF.flag), b"", SNAPSHOT, [event(FLAG_SNAPSHOT, at)])
        ledger.append(entry, event(FLAG_WRITTEN, at))


async def again(desk: Desk, at: float) -> Reason | Outcome:
    """Somebody turns the flag on again, and another trigger fires at `at`."""
    desk.backend.edit("on")
    desk.now = at
    version = (await desk.executor.read_flag(REF.flag, REF.environment)).version
    result = await desk.execute(signed(flag_version=version, trigger="other", issued_at=at))
    return result.reason or result.outcome


@pytest.mark.parametrize(("after", "allowed"), [(59.999, False), (60.0, True), (60.001, True)])
def test_a_flag_may_be_flipped_again_as_soon_as_the_time_is_over(tmp_path: Path, after: float, allowed: bool) -> None:
    ledger = Ledger(tmp_path)
    flipped(ledger, 1000.0)
    refusal = Cooldown(ledger, 60.0).refusal(REF, 1000.0 + after)
    assert (refusal is None) == allowed
    assert refusal is None or refusal.over_at == 1060.0


async def test_a_refusal_says_when_the_flag_may_be_flipped(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.execute(signed())
    desk.backend.edit("on")
    desk.now = 1011.0
    version = (await desk.executor.read_flag(REF.flag, REF.environment)).version
    result = await desk.execute(signed(flag_version=version, issued_at=1010.0))
    assert (result.reason, result.retry_at) == (Reason.COOLDOWN, 1001.0 + COOLDOWN)
    assert "10.0 s ago" in result.detail
    assert "60 s" in result.detail


async def test_a_standby_on_the_same_ledger_knows_of_the_flip(tmp_path: Path) -> None:
    one = Desk(tmp_path)
    two = Desk(tmp_path, one.backend)
    await one.execute(signed())
    assert await again(two, 1011.0) is Reason.COOLDOWN
    assert await again(two, 1001.0 + COOLDOWN) is Outcome.APPLIED


async def test_a_flip_noted_by_a_clock_that_was_ahead_refuses_none_for_ever(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.now += 7 * DAY
    assert (await desk.execute(signed(issued_at=desk.now))).outcome is Outcome.APPLIED
    assert await again(Desk(tmp_path, desk.backend), 1601.0) is Outcome.APPLIED


async def test_a_clock_set_back_after_a_flip_does_not_end_its_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.now += DAY
    await desk.execute(signed(issued_at=desk.now))
    assert await again(desk, 1011.0) is Reason.COOLDOWN


def test_an_executor_whose_clock_is_a_little_ahead_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    flipped(ledger, 1000.0)
    refusal = Cooldown(ledger, 60.0).refusal(REF, 1000.0 - CLOCK_SKEW_S)
    # It counts as one of this moment.
    assert refusal is not None
    assert refusal.over_at == 1060.0 - CLOCK_SKEW_S


def test_own_flips_age_by_the_monotonic_clock_where_the_wall_clock_was_set_back(tmp_path: Path) -> None:
    ledger, mono = Ledger(tmp_path), [0.0]
    cooldown = Cooldown(ledger, 60.0, lambda: mono[0])
    flipped(ledger, 10.0, DAY)
    cooldown.flipped(REF)
    assert cooldown.refusal(REF, 1000.0) is not None
    mono[0] = 60.0
    assert cooldown.refusal(REF, 1000.0) is None
