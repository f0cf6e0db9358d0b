"""A command that came to nothing and is sent anew: another round where there is something new to say, else none."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.backends.contract import Outcome
from agent.events import cloudevents as events
from tests.unit.agent.executor.test_executor import Desk, command, signed


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    """The command found that a person had changed the flag, and has expired."""
    desk = Desk(tmp_path)
    desk.backend.edit("beta")
    assert (await desk.execute(signed())).outcome is Outcome.CONFLICT
    desk.now += 65.0
    desk.told.clear()
    return desk


async def test_a_flag_that_is_still_another_one_is_nothing_new(desk: Desk) -> None:
    result = await desk.execute(signed(issued_at=desk.now))
    assert result.outcome is Outcome.DUPLICATE
    assert "flag.conflict" in result.detail
    assert [entry.round for entry in desk.ledger.entries()] == [0]
    assert desk.types == [events.COMMAND_REJECTED]


async def test_a_flag_that_is_safe_meanwhile_ends_another_round(desk: Desk) -> None:
    desk.backend.edit("off")
    assert (await desk.execute(signed(issued_at=desk.now))).outcome is Outcome.ALREADY
    assert desk.entry is not None
    assert (desk.entry.round, desk.entry.settled, desk.entry.undone) == (1, True, False)
    assert desk.types == [events.COMMAND_RECEIVED, events.FLAG_ALREADY]
    assert desk.backend.writes == []


async def test_each_step_has_an_id_that_follows_from_its_round(desk: Desk) -> None:
    """Processes of two versions that share an audit log give one step one id."""
    desk.backend.edit("off")
    await desk.execute(signed(issued_at=desk.now))
    for number, name in enumerate(("0", "1.0")):
        entry = desk.ledger.round(command().id, number)
        assert entry is not None
        assert [event.id for event in entry.events] == [
            events.event_id(command().id, event.type, name) for event in entry.events
        ]
