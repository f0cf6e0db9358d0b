"""Incidents of several flags: each flag has its own outcome, and the outcome of all is published once.

A flag that fails stops no other, and a flag that was made safe is not turned on again because of it: a partial rollback
fails towards safe, and the event says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.backends.contract import FlagRef, Outcome
from agent.commands.command import Command, command_id
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.allowlist import AllowList

EXPIRED = "expired"
"""The outcome of a flag whose command expired without one."""

_OUTCOMES: dict[str, str] = {
    events.FLAG_VERIFIED: Outcome.APPLIED,
    events.FLAG_UNVERIFIED: Outcome.APPLIED,
    events.FLAG_ALREADY: Outcome.ALREADY,
    events.FLAG_CONFLICT: Outcome.CONFLICT,
    events.FLAG_UNRESOLVED: Outcome.AMBIGUOUS,
    events.FLAG_NOT_WRITTEN: EXPIRED,
}


@dataclass(slots=True)
class _Open:
    """An unfinished incident: one of its commands, when the last command expires, and which flags were refused."""

    command: Command
    expires_at: float
    refused: set[FlagRef] = field(default_factory=set)


class Groups:
    """The unfinished incidents of groups. `finished` blocks on the disk."""

    def __init__(self, ledger: Ledger, allowed: AllowList) -> None:
        self._ledger = ledger
        self._allowed = allowed
        self._open: dict[str, _Open] = {}

    def note(self, command: Command, *, refused: bool = False) -> None:
        """Follow the incident of a command, if it is one of several flags."""
        if len(self._allowed.group(command)) == 1:
            return
        known = self._open.setdefault(command.incident, _Open(command, command.expires_at))
        known.expires_at = max(known.expires_at, command.expires_at)
        if refused:
            known.refused.add(FlagRef(command.flag, command.environment))

    def recover(self, entries: Sequence[Entry], now: float) -> None:
        """Follow the incidents that an earlier process left unfinished."""
        done = {entry.command.incident for entry in entries if entry.find(events.INCIDENT_DONE)}
        for entry in entries:
            command = entry.command
            # Skip an expired command without companions: the group may have been configured after it.
            if command.incident not in done and (command.cause is not None or now < command.expires_at):
                self.note(command)

    @property
    def open(self) -> bool:
        return bool(self._open)

    def finished(self, now: float) -> list[Entry]:
        """Record each incident that is finished; return the entries to which that was added."""
        return [entry for incident in list(self._open) if (entry := self._finish(incident, now)) is not None]

    def _finish(self, incident: str, now: float) -> Entry | None:
        known = self._open[incident]
        entries = {ref: self._entry(known.command, ref) for ref in self._allowed.group(known.command)}
        outcomes = {ref: _outcome(entry, ref in known.refused) for ref, entry in entries.items()}
        if None in outcomes.values() and now < known.expires_at:
            return None
        del self._open[incident]
        found = [entry for entry in entries.values() if entry is not None]
        # If nothing was begun, the refusals are already published.
        if not found or any(entry.find(events.INCIDENT_DONE) for entry in found):
            return None
        entry = next((entry for entry in found if entry.settled), found[0])
        self._ledger.append(entry, _done(known.command, entries, outcomes, now))
        return entry

    def _entry(self, command: Command, ref: FlagRef) -> Entry | None:
        try:
            safe = self._allowed[ref].safe
        except KeyError:
            return None
        return self._ledger.get(command_id(ref.flag, safe, command.trigger, command.incident))


def _outcome(entry: Entry | None, refused: bool) -> str | None:
    if entry is not None and entry.settled:
        return next(str(_OUTCOMES[event.type]) for event in entry.events if event.type in _OUTCOMES)
    return str(Outcome.REJECTED) if refused else None


def _done(
    command: Command, entries: dict[FlagRef, Entry | None], outcomes: dict[FlagRef, str | None], now: float
) -> Event:
    flags = {}
    for ref, outcome in outcomes.items():
        entry = entries[ref]
        doubtful = entry is not None and entry.find(events.FLAG_AMBIGUOUS) is not None
        flags[ref.flag] = outcome or (str(Outcome.AMBIGUOUS) if doubtful else EXPIRED)
    partial = any(outcome not in (Outcome.APPLIED, Outcome.ALREADY) for outcome in flags.values())
    origin = command.origin.flag
    return Event(
        type=events.INCIDENT_DONE,
        subject=events.subject_of(command.environment, origin),
        data={
            "incident": command.incident,
            "trigger": command.trigger,
            "environment": command.environment,
            "flags": flags,
            "partial": partial,
        },
        id=events.event_id(command.incident, events.INCIDENT_DONE),
        time=now,
    )
