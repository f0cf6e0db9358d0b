"""The order of events in which each stands behind what it follows from.

The time of a verdict is that of its evidence, which is complete some seconds later: a verdict that was made after a
flip may have an earlier time than the command. So events are ordered by when they were made. That is the clock of the
process that made them, and two processes may differ by a second. What follows from what is therefore not read from the
clocks but from what the events say: a command names the evaluation on which it was given, a verdict the version of the
flag that it judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from agent.events import cloudevents as events
from agent.events.cloudevents import Event

_AFTER_FLIP: Final = frozenset(
    {
        events.FLAG_EFFECTIVE,
        events.FLAG_INEFFECTIVE,
        events.FLAG_EFFECT_UNKNOWN,
        events.FLAG_RECOVERED,
        events.FLAG_NOT_RECOVERED,
        events.FLAG_RECOVERY_UNKNOWN,
    }
)
_OF_EVIDENCE: Final = _AFTER_FLIP | {events.DRIFT_WORSE, events.DRIFT_BETTER}
"""What has the time of its evidence, beside verdicts and their inabilities."""

_WROTE: Final = frozenset({events.FLAG_WRITTEN, events.FLAG_VERIFIED, events.FLAG_UNVERIFIED, events.FLAG_ALREADY})

_CAUSE, _FREE, _EFFECT = -1, 0, 1
"""Places among events of the same moment."""


class _Flip(NamedTuple):
    """A command as it was received at `at`, on evidence of the evaluation `fired_at`; the flag was safe at `done`."""

    at: float
    fired_at: float | None
    done: float


def is_verdict(event: Event) -> bool:
    """Is it of a trigger whose verdict changed?"""
    return event.type.startswith(events.trigger_type(""))


def made_at(event: Event) -> float:
    """When it was made, in Unix seconds: its own time, or where that is of its evidence, when it was recorded."""
    # An executor that goes on after a crash publishes the steps of a flip again: their own time is the better one.
    standing = event.type == events.INABILITY and "command_id" not in event.data
    if event.recorded is not None and (standing or is_verdict(event) or event.type in _OF_EVIDENCE):
        return event.recorded
    return event.time


def in_order(found: Iterable[Event]) -> list[Event]:
    """The events in order, each id once. Those of which nothing else is known stay as they came."""
    once = list({event.id: event for event in found}.values())
    done: dict[str, float] = {}
    for event in once:
        if event.type in _WROTE:
            incident = str(event.data.get("incident"))
            done[incident] = max(done.get(incident, event.time), event.time)
    flips: dict[tuple[str, object], list[_Flip]] = {}
    received: dict[str, float] = {}
    for event in once:
        if event.type == events.COMMAND_RECEIVED:
            incident = str(event.data.get("incident"))
            received[incident] = min(received.get(incident, event.time), event.time)
            end = done.get(incident, event.time)
            of = flips.setdefault((event.subject, event.data.get("trigger")), [])
            of.append(_Flip(event.time, _fired_at(event.data), max(end, event.time)))

    def place(event: Event) -> tuple[float, int, float]:
        at, rank = made_at(event), _FREE
        if is_verdict(event):
            at, rank = _of_verdict(event, at, flips.get((event.subject, event.data.get("trigger")), ()))
        elif event.type in _AFTER_FLIP:
            after = done.get(str(event.data.get("incident")), at)
            at, rank = max(at, after), _EFFECT
        elif event.data.get("status") == events.NOTICE:
            # The monitor adds it to a command, which an executor may receive later.
            at, rank = max(at, received.get(str(event.data.get("incident")), at)), _EFFECT
        return at, rank, made_at(event)

    return sorted(once, key=place)


def _of_verdict(event: Event, at: float, flips: Iterable[_Flip]) -> tuple[float, int]:
    """The moment of a verdict made at `at`: not after the commands it led to, nor before the flip it came after."""
    since, rank = event.data.get("flag_since"), _FREE
    for flip in flips:
        if flip.fired_at is not None and event.time <= flip.fired_at:
            if at >= flip.at:
                at, rank = flip.at, _CAUSE
        elif isinstance(since, int | float) and since >= flip.at and at <= flip.done:
            # Both are of the executor's clock.
            at, rank = flip.done, _EFFECT
    return at, rank


def _fired_at(data: Mapping[str, Any]) -> float | None:
    command = data.get("command")
    evidence = command.get("evidence") if isinstance(command, dict) else None
    fired_at = evidence.get("fired_at") if isinstance(evidence, dict) else None
    return float(fired_at) if isinstance(fired_at, int | float) else None
