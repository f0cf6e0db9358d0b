"""Checks of the flags together: one safe state each, groups, names of triggers, and the number of scopes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.backends.shown import meant
from agent.commands.command import BY_HAND
from agent.config.document import Note
from agent.config.flags import Flag
from agent.config.wrong import WRONG, decoded_items, is_wrong
from detectors.cells import Scope


def check_flags(flags: list[tuple[int, Flag]], settings: Mapping[str, Any], note: Note) -> None:
    """Check the flags that were decoded, each with its index, against one another and the whole file's settings."""
    _one_flag(flags, note)
    _groups(flags, settings["automation"], note)
    _trigger_names(flags, note)
    _scopes(flags, settings["max_scopes"], note)


def _one_flag(flags: list[tuple[int, Flag]], note: Note) -> None:
    """Check that entries of one flag, in several services, agree on its backend, safe variant and group; and that no
    backend has the same flag for two environments.
    """
    places: dict[tuple[str, str, str], int] = {}
    first: dict[tuple[str, str], tuple[int, Flag]] = {}
    owners: dict[tuple[str, str], str] = {}
    for index, flag in flags:
        if WRONG in (flag.environment, flag.service, flag.flag):
            continue
        place = (flag.environment, flag.service, flag.flag)
        if place in places:
            message = f"flags[{places[place]}] has the same flag, service and environment"
            note(f"flags[{index}].flag", message, "put the triggers of both under one")
        places.setdefault(place, index)
        at, other = first.setdefault((flag.environment, flag.flag), (index, flag))
        for name in ("backend", "safe", "together"):
            mine, theirs = getattr(flag, name), getattr(other, name)
            if not is_wrong(mine) and not is_wrong(theirs) and mine != theirs:
                message = f"flags[{at}] is the same flag with {theirs!r}, found {mine!r}"
                note(f"flags[{index}].{name}", message, "a flag has one safe state, backend and group: make them alike")
        if (
            flag.backend is not WRONG
            and owners.setdefault((flag.backend, flag.flag), flag.environment) != flag.environment
        ):
            message = f"{flag.flag!r} of {flag.backend} is that of {owners[flag.backend, flag.flag]} already"
            note(
                f"flags[{index}].backend", message, "give each environment a backend of its own: a flip would hit both"
            )


def _groups(flags: list[tuple[int, Flag]], automation: Any, note: Note) -> None:
    """Check that the flags of a group are managed in its environment, and not more than may be turned back at once."""
    managed: dict[Any, dict[str, None]] = {}
    for _, flag in flags:
        if WRONG not in (flag.environment, flag.flag):
            managed.setdefault(flag.environment, {})[flag.flag] = None
    limits = WRONG not in (automation, *(getattr(automation, name, WRONG) for name in ("max_flips", "max_share")))
    most = automation.most(sum(map(len, managed.values()))) if limits else None
    for index, flag in flags:
        if WRONG in (flag.environment, flag.flag) or flag.together is WRONG:
            continue
        path = f"flags[{index}].together"
        known = [name for name in managed[flag.environment] if name != flag.flag]
        for number, name in decoded_items(flag.together):
            if name == flag.flag:
                note(f"{path}[{number}]", "is the flag itself", "name the others only")
            elif name not in known:
                message = f"no flag {name!r} is under watch in {flag.environment}"
                todo = f"known are: {', '.join(known)}" if known else "add the flag, or leave it out"
                note(f"{path}[{number}]", message, meant(name, known) or todo)
            elif name in flag.together[:number]:
                note(f"{path}[{number}]", f"{name!r} is named twice", "leave one of the two")
        size = 1 + len(set(flag.together) & set(known))
        if most is not None and size > most:
            message = f"{size} flags are more than automation may turn back at once, {most}: it would halt instead"
            note(path, message, "raise automation.max_flips and automation.max_share, or name fewer")


def _trigger_names(flags: list[tuple[int, Flag]], note: Note) -> None:
    """Check that names are unique for a flag: a trigger gives one command per flag version, by its name."""
    names: dict[tuple[str, str, str], str] = {}
    for index, flag in flags:
        for number, trigger in decoded_items(flag.triggers):
            key, path = (flag.environment, flag.flag, trigger.name), f"flags[{index}].triggers[{number}]"
            if WRONG in key:
                continue
            if trigger.name == BY_HAND:
                note(f"{path}.name", f"{BY_HAND!r} stands for what a person orders", "give it another name")
            if key in names:
                message = f"{trigger.name!r} is the name of {names[key]} too"
                note(f"{path}.name", message, "give each trigger of a flag a name of its own")
            names.setdefault(key, path)


def _scopes(flags: list[tuple[int, Flag]], most: Any, note: Note) -> None:
    """Check that `max_scopes` has room for the scopes that triggers judge or compare with."""
    needed = set()
    for _, flag in flags:
        needed.add(Scope(flag.environment, flag.service))
        for _, trigger in decoded_items(flag.triggers):
            if trigger.when is WRONG:
                continue
            condition = trigger.when.condition
            variants = [condition.variant, (flag.control or flag.safe) if condition.relative == "control" else None]
            needed |= {Scope(flag.environment, flag.service, flag.flag, v) for v in variants if v is not None}
    if most is not WRONG and len(needed) > most:
        message = f"the triggers look at {len(needed)} scopes, more than {most}"
        note("max_scopes", message, "raise it, and leave room for services that are not under watch")
