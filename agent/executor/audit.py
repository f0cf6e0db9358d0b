"""The events of a command in the audit log, and their ids.

An id follows from the command and the step: a step that is published twice, by a re-delivery or a second process, has
the same id.
"""

from __future__ import annotations

import hashlib
from typing import Any

from agent.backends.contract import FlagState
from agent.commands.command import Command, Rejection
from agent.events.cloudevents import COMMAND_REJECTED, Event, event_id, subject_of
from agent.ledger.entry import Entry
from agent.state.flags import FlagStatus

UNKNOWN_SUBJECT = "unknown"


def step(command: Command, kind: str, data: dict[str, Any], number: str, at: float) -> Event:
    """Make an event of type `kind`; `number` distinguishes events of one type."""
    about = {
        "command_id": command.id,
        "incident": command.incident,
        "trigger": command.trigger,
        "flag": command.flag,
        "environment": command.environment,
        "service": command.service,
        "backend": command.backend,
        "target": command.target,
    }
    return Event(
        type=kind,
        subject=subject_of(command.environment, command.flag),
        data={**about, **data},
        id=event_id(command.id, kind, number),
        time=at,
    )


def entry_step(entry: Entry, kind: str, data: dict[str, Any], at: float) -> Event:
    """Make the next event of type `kind` of an entry in the ledger."""
    number = str(sum(event.type == kind for event in entry.events))
    return step(entry.command, kind, data, in_round(entry.round, number), at)


def in_round(number: int, name: str) -> str:
    """Return the name of a step in a round of its command, so that the steps of two rounds have different ids."""
    return f"{number}.{name}" if number else name


def refusal(raw: bytes, rejection: Rejection, at: float, suppressed: int) -> Event:
    """Make the event of bytes that no known key has signed; it repeats nothing of what they claim.

    `suppressed` is the number of such refusals before it that were not published.
    """
    sha256 = digest(raw)
    data: dict[str, Any] = {"reason": rejection.reason, "detail": rejection.detail, "bytes": len(raw), "sha256": sha256}
    if suppressed:
        data["suppressed"] = suppressed
    number = event_id("refused", sha256, rejection.reason)
    return Event(type=COMMAND_REJECTED, subject=UNKNOWN_SUBJECT, data=data, id=number, time=at)


def found(status: FlagStatus) -> dict[str, Any]:
    """Return the flag's state as data of an event."""
    return {"variant": status.variant, "flag_version": status.version}


def definition(state: FlagState) -> dict[str, Any]:
    """Identify the definition that is kept for a restore. Its text may hold secrets and stays in the ledger."""
    raw = state.raw.encode()
    return {"sha256": digest(raw), "bytes": len(raw)}


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
