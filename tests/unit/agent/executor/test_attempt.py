"""A later attempt at a command that certainly failed: what a person did meanwhile, to the flag or by a halt, holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.backends.contract import Outcome
from agent.commands.command import Reason
from agent.errors import Permission
from agent.events import cloudevents as events
from agent.ledger.automation import Automation
from tests.unit.agent.executor.test_executor import REF, Desk, command, signed


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize(
    ("variants", "outcome", "end"),
    [
        (["off"], Outcome.ALREADY, {"variant": "off", "flag_version": "g2-v-off"}),
        (["beta"], Outcome.CONFLICT, {"variant": "beta", "flag_version": "g2-v-beta", "expected": "g1-v-on"}),
        (["off", "on"], Outcome.CONFLICT, {"variant": "on", "flag_version": "g3-v-on", "expected": "g1-v-on"}),
    ],
)
async def test_the_result_and_the_last_step_name_the_version_that_was_found(
    desk: Desk, variants: list[str], outcome: Outcome, end: dict[str, str]
) -> None:
    desk.backend.faults["apply"] = [Permission("403")]
    assert not (await desk.execute(signed())).final
    for variant in variants:
        desk.backend.edit(variant)
        await desk.executor.read_flag(*REF)
    result = await desk.execute(signed())
    assert (result.outcome, result.final, result.command) == (outcome, True, command())
    assert result.detail == f"the flag is {end['flag_version']}, judged was g1-v-on"
    assert result.status == desk.watch.current(REF)
    assert desk.backend.writes == []
    last = desk.told[-1]
    assert last.type == (events.FLAG_ALREADY if outcome is Outcome.ALREADY else events.FLAG_CONFLICT)
    assert end.items() <= last.data.items()


async def test_a_halt_meanwhile_refuses_the_command_with_the_words_of_the_halt(desk: Desk) -> None:
    desk.backend.faults["apply"] = [Permission("403")]
    assert not (await desk.execute(signed())).final
    switch = Automation(desk.ledger.directory)
    with switch.locked():
        switch.halt("maintenance until noon", by="ann", at=desk.now)
    result = await desk.execute(signed())
    assert (result.outcome, result.reason, result.final) == (Outcome.REJECTED, Reason.HALTED, True)
    assert "maintenance until noon" in result.detail
    assert result.command == command()
    (refused,) = [event for event in desk.told if event.type == events.COMMAND_REJECTED]
    assert refused.data["detail"] == result.detail
    assert desk.backend.writes == []
