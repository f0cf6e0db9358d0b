"""A command made by other rules than the executor's file is said, and no reason to refuse."""

from __future__ import annotations

import msgspec
import pytest

from agent.commands.command import BY_HAND, Command
from agent.executor.skew import SHOWN_FOR, Skew
from tests.unit.agent.commands.test_commands import command as make


@pytest.fixture
def command() -> Command:
    return make()


def test_other_rules_are_an_obstacle_for_ten_minutes(command: Command) -> None:
    now = 5.0
    skew = Skew("mine", lambda: now)
    skew.note(msgspec.structs.replace(command, rules_hash="others"))
    (obstacle,) = skew.obstacles()
    assert obstacle.what == "configuration"
    assert "rules others, here mine" in obstacle.why
    now += SHOWN_FOR + 1
    assert skew.obstacles() == []


def test_the_own_rules_and_orders_of_people_are_none(command: Command) -> None:
    skew = Skew("mine")
    skew.note(msgspec.structs.replace(command, rules_hash="mine"))
    skew.note(msgspec.structs.replace(command, rules_hash="others", trigger=BY_HAND))
    assert skew.obstacles() == []
