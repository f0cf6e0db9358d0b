"""Checks of a rollout file against the configuration whose flag it rolls out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.backends.shown import meant
from agent.config.document import Note
from agent.config.flags import Flag
from agent.config.model import Config
from agent.config.rollout_file import RolloutStage
from agent.config.wrong import WRONG, decoded_items
from detectors.conditions.durations import format_seconds


def check_rollout(settings: Mapping[str, Any], config: Config, note: Note) -> None:
    """Check the fields of a Rollout. Those that are WRONG have been noted already, and lead to no further problem."""
    seen: dict[str, int] = {}
    safe: dict[str, str] = {}
    noted: set[tuple[str, str]] = set()

    def once(path: str, message: str, todo: str, excerpt: str | None = None) -> None:
        """Stages share settings, whose problems are noted once."""
        if (path, message) not in noted:
            noted.add((path, message))
            note(path, message, todo, excerpt)

    stages = list(decoded_items(settings["stages"]))
    for index, stage in stages:
        path = f"stages[{index}]"
        if stage.environment is not WRONG:
            first = seen.setdefault(stage.environment, index)
            if first != index:
                todo = "put the steps of both under one, or give the second an environment of its own"
                note(f"{path}.environment", f"stages[{first}] is {stage.environment!r} already", todo)
        flags = _flags_of(stage, settings["flag"], config, path, once)
        _checks(stage, path, note)
        safe |= {flag.safe: flag.flag for flag in flags}
        _percents(stage, path, last=index == len(settings["stages"]) - 1, note=note)
        _times(stage, flags, settings["gate"], path, note)
    _gate(settings["gate"], note)
    variant = settings["variant"]
    if variant is not WRONG and variant in safe:
        note("variant", f"{variant!r} is the safe variant of {safe[variant]!r}", "name the variant that is rolled out")


def _flags_of(stage: RolloutStage, name: Any, config: Config, path: str, note: Note) -> list[Flag]:
    """The entries of the stage's flag in the configuration, one a service."""
    own = stage.flag_name(name)
    if WRONG in (own, stage.environment):
        return []
    found = stage.entries(name, config.flags)
    if not found:
        environments = sorted({flag.environment for flag in config.flags if flag.flag == own})
        names = sorted({flag.flag for flag in config.flags})
        if environments:
            message = f"the configuration has {own!r} in {', '.join(environments)}, not in {stage.environment!r}"
            note(f"{path}.environment", message, meant(stage.environment, environments) or "add the flag there")
        else:
            at = f"{path}.flag" if stage.flag is not None else "flag"
            note(at, f"the configuration has no flag {own!r}", meant(own, names) or f"known are: {', '.join(names)}")
    return found


def _checks(stage: RolloutStage, path: str, note: Note) -> None:
    for number, test in decoded_items(stage.checks):
        if test in stage.checks[:number]:
            note(f"{path}.checks[{number}]", f"{test!r} is named twice", "leave out one of the two")


def _gate(gate: Any, note: Note) -> None:
    if gate is not WRONG and gate.hold is not WRONG:
        _before_deadline(gate.hold, gate, "gate.for", note)


def _before_deadline(seconds: int, gate: Any, path: str, note: Note) -> None:
    if gate is WRONG or gate.deadline is WRONG or gate.deadline.after is WRONG:
        return
    if seconds >= gate.deadline.after:
        message = f"{format_seconds(seconds)} is not before the gate's deadline of"
        note(path, f"{message} {format_seconds(gate.deadline.after)}", "raise gate.deadline.after")


def _percents(stage: RolloutStage, path: str, *, last: bool, note: Note) -> None:
    before = 0.0
    for number, step in decoded_items(stage.steps):
        if step.percent is WRONG:
            continue
        if step.percent <= before:
            message = f"{step.percent:g} % follows {before:g} %"
            note(f"{path}.steps[{number}].percent", message, "the percentages of a stage rise")
        before = step.percent
    if last and before not in (0.0, 100.0) and stage.steps[-1].percent is not WRONG:
        message = f"the rollout ends with {before:g} %"
        note(f"{path}.steps[{len(stage.steps) - 1}].percent", message, "the last step of the last stage is 100")


def _times(stage: RolloutStage, flags: list[Flag], gate: Any, path: str, note: Note) -> None:
    """A step is a new version of its flag, of which triggers know nothing before their window and `for` have passed."""
    longest, name = 0, ""
    for flag in flags:
        for trigger in flag.triggers:
            condition = trigger.when.condition
            if trigger.action == "rollback" and not condition.sequential and condition.over + condition.hold > longest:
                longest, name = condition.over + condition.hold, trigger.name
    for number, step in decoded_items(stage.steps):
        if step.at_least is WRONG:
            continue
        at = f"{path}.steps[{number}].at_least"
        if step.at_least < longest:
            message = f"{format_seconds(step.at_least)} is shorter than `over` and `for` of the trigger {name!r}"
            todo = f"write {format_seconds(longest)} at least: in a shorter step the trigger cannot fire"
            note(at, f"{message}, together {format_seconds(longest)}", todo)
        _before_deadline(step.at_least, gate, at, note)
