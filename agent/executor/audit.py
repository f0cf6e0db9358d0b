"""The events of a command: what the audit log says of it, and under which ids.

An id follows from the command and the step, so that a step told twice, by a re-delivery or a second process, is known
for the same.
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
    """An event of type `kind`; `number` tells those of one type apart."""
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
    """The next event of type `kind` of an entry in the ledger."""
    number = str(sum(event.type == kind for event in entry.events))
    return step(entry.command, kind, data, in_round(entry.round, number), at)


def in_round(number: int, name: str) -> str:
    """The name of a step in a round of its command: what a command did at first and what it did later differ."""
    return f"{number}.{name}" if number else name


def refusal(raw: bytes, rejection: Rejection, at: float, suppressed: int) -> Event:
    """The event of bytes that no known key has signed: what they claim is not repeated.

    `suppressed` is how many such refusals before it were not published.
    """
    sha256 = digest(raw)
    data: dict[str, Any] = {"reason": rejection.reason, "detail": rejection.detail, "bytes": len(raw), "sha256": sha256}
    if suppressed:
        data["suppressed"] = suppressed
    number = event_id("refused", sha256, rejection.reason)
    return Event(type=COMMAND_REJECTED, subject=UNKNOWN_SUBJECT, data=data, id=number, time=at)


def found(status: FlagStatus) -> dict[str, Any]:
    """How the flag was found, as data of an event."""
    return {"variant": status.variant, "flag_version": status.version}


def definition(state: FlagState) -> dict[str, Any]:
    """Names the definition that was kept to be restored. Its text may hold secrets, and stays in the ledger."""
    raw = state.raw.encode()
    return {"sha256": digest(raw), "bytes": len(raw)}


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
