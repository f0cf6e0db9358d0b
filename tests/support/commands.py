"""Commands for tests that change one field of a command at a time."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from agent.commands.command import Command, FlipTarget, issue


def issued(**given: Any) -> Command:
    """`issue` with the fields of its FlipTarget among the other arguments."""
    flip = FlipTarget(**{field.name: given.pop(field.name) for field in fields(FlipTarget)})
    return issue(flip, **given)
