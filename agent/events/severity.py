"""The log level of an event: people set alerts on levels, and most events need no action."""

from __future__ import annotations

import logging

from agent.commands.command import Reason
from agent.events import cloudevents as events
from agent.events.cloudevents import Event

_ERROR = frozenset(
    {
        events.AUTOMATION_HALTED,
        events.FLAG_AMBIGUOUS,
        events.FLAG_UNRESOLVED,
        events.FLAG_INEFFECTIVE,
        events.INABILITY,
    }
)
"""A flag may be, or would be, unsafe until a person does something."""

_WARNING = frozenset(
    {
        events.COMMAND_REJECTED,
        events.FLAG_UNVERIFIED,
        events.FLAG_NOT_WRITTEN,
        events.FLAG_NOT_RECOVERED,
        events.FLAG_EFFECT_UNKNOWN,
        events.FLAG_RECOVERY_UNKNOWN,
        events.TELEMETRY_REJECTED,
    }
)
"""A person should look."""

_VERDICTS = (events.trigger_type(""), "flipback.drift.")
_FIRING = events.trigger_type("firing")


def level(event: Event) -> int:
    """Return the level of `logging` at which the event is logged."""
    if event.type == events.INABILITY and event.data.get("state") == "ended":
        return logging.INFO
    if event.type == events.COMMAND_REJECTED and event.data.get("reason") == Reason.DUPLICATE:
        # Duplicates are normal: commands are delivered at least once.
        return logging.INFO
    if event.type in _ERROR or (event.type == events.INCIDENT_DONE and event.data.get("partial")):
        return logging.ERROR
    return logging.WARNING if event.type in _WARNING else logging.INFO


def importance(event: Event) -> int:
    """Return how important the event is, 0 to 2. If not all can be kept, verdicts that need no action go first."""
    severity = level(event)
    if severity >= logging.ERROR:
        return 2
    return 1 if severity >= logging.WARNING or not event.type.startswith(_VERDICTS) or event.type == _FIRING else 0
