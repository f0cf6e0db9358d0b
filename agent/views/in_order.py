"""Order events so that each comes after its causes.

A verdict's time is the time of its evidence, which is complete some seconds later: a verdict made after a flip may have
an earlier time than the command. So events are ordered by when they were made, by the clock of the process that made
them. The clocks of two processes may differ by a second, so causes are not read from clocks but from the events' data:
a command names the evaluation that it follows from, a verdict names the version of the flag that it judges.
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
"""Events that have the time of their evidence, besides verdicts and their inabilities."""

_WROTE: Final = frozenset({events.FLAG_WRITTEN, events.FLAG_VERIFIED, events.FLAG_UNVERIFIED, events.FLAG_ALREADY})

_CAUSE, _FREE, _EFFECT = -1, 0, 1
"""Ranks among events of the same moment."""


class _Flip(NamedTuple):
    """A command received at `at`, with evidence of the evaluation `fired_at`; the flag was safe at `done`."""

    at: float
    fired_at: float | None
    done: float


def is_verdict(event: Event) -> bool:
    """Is it the event of a trigger whose verdict changed?"""
    return event.type.startswith(events.trigger_type(""))


def made_at(event: Event) -> float:
    """Return when the event was made, in Unix seconds: its own time, or if that is its evidence's, its recorded time.

    It is the evidence's time for verdicts, lasting inabilities and the events after a flip.
    """
    # Steps of a flip keep their own time: after a crash an executor publishes them again, with a later recorded time.
    standing = event.type == events.INABILITY and "command_id" not in event.data
    if event.recorded is not None and (standing or is_verdict(event) or event.type in _OF_EVIDENCE):
        return event.recorded
    return event.time


def in_order(found: Iterable[Event]) -> list[Event]:
    """Return the events in order, each id once. Events of equal time and rank stay in the given order."""
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
            of_trigger = flips.setdefault((event.subject, event.data.get("trigger")), [])
            of_trigger.append(_Flip(event.time, _fired_at(event.data), max(end, event.time)))

    def place(event: Event) -> tuple[float, int, float]:
        at, rank = made_at(event), _FREE
        if is_verdict(event):
            at, rank = _of_verdict(event, at, flips.get((event.subject, event.data.get("trigger")), ()))
        elif event.type in _AFTER_FLIP:
            after = done.get(str(event.data.get("incident")), at)
            at, rank = max(at, after), _EFFECT
        elif event.data.get("status") == events.NOTICE:
            # A notice follows a command, which an executor may receive later than the monitor publishes the notice.
            at, rank = max(at, received.get(str(event.data.get("incident")), at)), _EFFECT
        return at, rank, made_at(event)

    return sorted(once, key=place)


def _of_verdict(event: Event, at: float, flips: Iterable[_Flip]) -> tuple[float, int]:
    """Return time and rank of a verdict made at `at`: not after the commands that it caused, nor before the flip that
    it follows.
    """
    since, rank = event.data.get("flag_since"), _FREE
    for flip in flips:
        if flip.fired_at is not None and event.time <= flip.fired_at:
            if at >= flip.at:
                at, rank = flip.at, _CAUSE
        elif isinstance(since, int | float) and since >= flip.at and at <= flip.done:
            # `since` and `flip.at` are both of the executor's clock.
            at, rank = flip.done, _EFFECT
    return at, rank


def _fired_at(data: Mapping[str, Any]) -> float | None:
    command = data.get("command")
    evidence = command.get("evidence") if isinstance(command, dict) else None
    fired_at = evidence.get("fired_at") if isinstance(evidence, dict) else None
    return float(fired_at) if isinstance(fired_at, int | float) else None
