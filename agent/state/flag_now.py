"""A flag's state now, since when, by whom and why: the newest event that set it, compared with its published state.

A person's flip without Kafka is only in a ledger until an executor publishes it: it is newer than the published state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from agent.commands.command import BY_HAND
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.state.flags import FlagStatus, generation

OUTSIDE = "somebody outside flipback"
AGENT = "flipback"

_SETS = frozenset({events.FLAG_WRITTEN, events.FLAG_VERIFIED, events.FLAG_RESTORED, events.FLAG_CHANGED})


class FlagNow(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a flag; times are Unix seconds.

    `variant` is None if subjects get different ones; `percent` (0 to 100) then is the share that gets the first.
    `since` is None and `by` and `reason` are empty if nobody has changed the flag since flipback first read it.
    `incident` names the flip that set it. `restorable`: that flip can be undone, because nobody has changed the flag
    since. `unpublished`: only the ledger of this machine knows this state.
    """

    variant: str | None
    percent: float | None
    safe: bool
    read_at: float
    since: float | None = None
    by: str = ""
    reason: str = ""
    incident: str | None = None
    restorable: bool = False
    unpublished: bool = False


def flag_now(
    log: Iterable[Event], subject: str, status: FlagStatus | None, unpublished: Collection[str] = ()
) -> FlagNow | None:
    """Return the state of the flag `subject` ("environment/flag"); None if there is no record of it.

    `log` is the audit log, in any order; `unpublished` are the ids of events that the local ledger adds to it.
    """
    of = [event for event in log if event.subject == subject]
    # The sort is stable: of two steps with one time, the later in the log is the later step.
    setters = sorted((event for event in of if event.type in _SETS), key=lambda event: event.time)
    newest = setters[-1] if setters else None
    if newest is not None and newest.id in unpublished and (status is None or newest.time > status.at):
        found = _left_by(newest)
    elif status is None:
        return None
    else:
        found = FlagNow(variant=status.variant, percent=status.percent, safe=status.safe, read_at=status.at)
        if newest is None or _is_older(newest, status):
            since = status.changed_at
            return found if since is None else msgspec.structs.replace(found, since=since, by=OUTSIDE)
    if newest.type == events.FLAG_CHANGED:
        return msgspec.structs.replace(found, since=newest.time, by=OUTSIDE)
    if newest.type == events.FLAG_RESTORED:
        return msgspec.structs.replace(
            found,
            since=newest.time,
            by=str(newest.data.get("by", "")),
            reason=_quoted(newest.data.get("reason")),
            incident=_incident_of(newest),
        )
    incident = _incident_of(newest)
    by, reason = _who(of, incident)
    written = any(event.type == events.FLAG_WRITTEN and _incident_of(event) == incident for event in of)
    return msgspec.structs.replace(
        found, since=newest.time, by=by, reason=reason, incident=incident, restorable=written
    )


def _left_by(event: Event) -> FlagNow:
    """Return the flag as a step of a flip or a restore left it."""
    target = event.data.get("target")
    # A write that was not read back has only its target.
    variant = event.data.get("variant", target)
    return FlagNow(variant=variant, percent=None, safe=variant == target, read_at=event.time, unpublished=True)


def _is_older(event: Event, status: FlagStatus) -> bool:
    """Was the flag seen in a later version than the event left it in?"""
    version = event.data.get("flag_version")
    if isinstance(version, str) and version.startswith("g"):
        return generation(version) < generation(status.version)
    # A restore records only the backend's version: it is made without the executor that counts generations.
    return event.data.get("version") != status.version.partition("-")[2]


def _who(of: Sequence[Event], incident: str | None) -> tuple[str, str]:
    """Return who ordered the flip of an incident, and why."""
    for event in of:
        command = event.data.get("command")
        if event.type == events.COMMAND_RECEIVED and isinstance(command, dict) and _incident_of(event) == incident:
            seen: dict[str, Any] = command.get("evidence") or {}
            if command.get("trigger") == BY_HAND:
                return str(seen.get("by") or "a person"), _quoted(seen.get("reason"))
            return AGENT, f"trigger {command.get('trigger')}"
    return AGENT, ""


def _incident_of(event: Event) -> str | None:
    incident = event.data.get("incident")
    return None if incident is None else str(incident)


def _quoted(reason: object) -> str:
    return repr(reason) if reason else "no reason given"
