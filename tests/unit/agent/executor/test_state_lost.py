"""The state directory may be lost: nothing is flipped twice for it, and a process that runs without it says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.backends.contract import Outcome
from agent.commands.command import Reason
from agent.executor.build import LEDGER
from tests.unit.agent.executor.test_executor import REF, Desk, signed
from tests.unit.agent.executor.test_service import House


def anew(desk: Desk, directory: Path) -> Desk:
    """The next process, with an empty state directory, to which the flag's last state was published."""
    shutil.rmtree(directory)
    reborn = Desk(directory, desk.backend)
    known = desk.watch.current(REF)
    assert known is not None
    reborn.watch.prime(known)
    reborn.now = desk.now
    return reborn


@pytest.mark.parametrize("after", [1.0, 3600.0])
async def test_a_command_that_was_carried_out_is_not_carried_out_again_after_the_ledger_was_lost(
    tmp_path: Path, after: float
) -> None:
    desk = Desk(tmp_path / "ledger")
    await desk.execute(signed())
    desk.backend.edit("on")
    await desk.executor.read_flag(REF.flag, REF.environment)
    reborn = anew(desk, tmp_path / "ledger")
    reborn.now += after
    await reborn.executor.recover()
    result = await reborn.execute(signed())
    assert (result.outcome, result.reason) in ((Outcome.CONFLICT, None), (Outcome.REJECTED, Reason.EXPIRED))
    assert reborn.backend.writes == ["off"]


async def test_a_bad_flag_is_flipped_after_the_ledger_was_lost(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "ledger")
    await desk.executor.read_flag(REF.flag, REF.environment)
    assert (await anew(desk, tmp_path / "ledger").execute(signed())).outcome is Outcome.APPLIED


async def test_a_state_directory_that_is_deleted_under_a_running_process_is_a_problem(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert await house.flips.check() == []
    shutil.rmtree(house.config.state_dir)
    found = await house.flips.check()
    assert any(str(house.config.state_dir / LEDGER) in problem and "make room" in problem for problem in found)
    await house.execute(await house.command())
    assert '"defaultVariant": "on"' in house.file.read_text()
    await house.flips.close()
