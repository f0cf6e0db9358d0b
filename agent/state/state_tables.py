"""The tables of incidents, results and flags: read from compacted topics, kept by key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec

from agent.state.flags import FlagStatus, begun_by, newest
from agent.state.incidents import AfterFlip, CommandResult, Ill, Incident
from streams.unreadable import UNREADABLE

_MOST_UNTRUSTED = 256
"""Results of bytes that no known key has signed, kept and stored at most: anybody may write such bytes."""

_incident = msgspec.json.Decoder(Incident)
_after_flip = msgspec.json.Decoder(AfterFlip)
_result = msgspec.json.Decoder(CommandResult)
_ill = msgspec.json.Decoder(Ill)
_status = msgspec.json.Decoder(FlagStatus)


class StateTables:
    """The tables. A record that cannot be read is counted, never guessed.

    `latest` returns the time after which nothing can have happened yet, in Unix seconds.
    """

    def __init__(self, latest: Callable[[], float] = lambda: math.inf) -> None:
        self._latest = latest
        self.incidents: dict[str, Incident] = {}
        self.after_flips: dict[tuple[str, str], AfterFlip] = {}
        """By incident and service."""
        self.results: dict[str, CommandResult] = {}
        """The newest result of each command, by its id."""
        self.untrusted: dict[str, CommandResult] = {}
        """Results of bytes that no accepted key had signed, by their SHA-256; the newest 256."""
        self.flags: dict[tuple[str, str], FlagStatus] = {}
        self.ill: dict[int, Ill] = {}
        """The ill flags of each monitor, by its place."""
        self.unreadable = 0
        self._indexed = 0
        self._by_place: dict[tuple[str, ...], list[str]] = {}

    def incident(self, value: bytes | None) -> None:
        """Update the tables from an Incident, AfterFlip, CommandResult or Ill, a record of the incidents topic."""
        for decoder in (_incident, _after_flip, _result, _ill):
            try:
                record = decoder.decode(value or b"")
            except UNREADABLE:
                continue
            if isinstance(record, Incident):
                self.incidents[record.id] = record
            elif isinstance(record, CommandResult):
                self.result(record)
            elif isinstance(record, Ill):
                self.ill[record.place] = record
            else:
                self._after_flip(record)
            return
        self.unreadable += 1

    def result(self, record: CommandResult) -> None:
        """Keep the newest result of a command; one without a command is of bytes that no accepted key signed."""
        if record.command:
            known = self.results.get(record.command)
            # Results of two executors may arrive out of order: the one that was decided last counts.
            if known is None or record.at >= known.at:
                self.results[record.command] = record
            return
        # To the end, so that the oldest are dropped first.
        self.untrusted.pop(record.sent, None)
        self.untrusted[record.sent] = record
        while len(self.untrusted) > _MOST_UNTRUSTED:
            del self.untrusted[next(iter(self.untrusted))]

    def of_flag(self, environment: str, flag: str) -> Iterator[Incident]:
        """Return the incidents of a flag, by an index."""
        return self._at("flag", environment, flag)

    def of_service(self, environment: str, service: str) -> Iterator[Incident]:
        """Return the incidents of a service."""
        return self._at("service", environment, service)

    def _at(self, *place: str) -> Iterator[Incident]:
        # Incidents are added and replaced, never removed.
        if self._indexed != len(self.incidents):
            self._indexed = len(self.incidents)
            self._by_place = {}
            for one in self.incidents.values():
                self._by_place.setdefault(("flag", one.environment, one.flag), []).append(one.id)
                self._by_place.setdefault(("service", one.environment, one.service), []).append(one.id)
        return (self.incidents[name] for name in self._by_place.get(place, ()))

    def result_of(self, incident: Incident) -> CommandResult | None:
        """Return the newest result of the incident's own command, also if the executor did not accept its key."""
        found = (self.results.get(incident.command), self.untrusted.get(incident.sent or ""))
        return max((one for one in found if one is not None), key=lambda one: one.at, default=None)

    def _after_flip(self, record: AfterFlip) -> None:
        # A verdict stays: a monitor that wrote two records knows the second before the topic returns the first.
        known = self.after_flips.get((record.incident, record.service), record)
        self.after_flips[record.incident, record.service] = msgspec.structs.replace(
            record, effect=record.effect or known.effect, bake=record.bake or known.bake
        )

    def flag(self, value: bytes | None) -> FlagStatus | None:
        """Update the tables from a record of the flags topic; return the status as it was published."""
        try:
            status = _status.decode(value or b"")
        except UNREADABLE:
            self.unreadable += 1
            return None
        self.see(status)
        return status

    def see(self, status: FlagStatus) -> FlagStatus:
        """Update the tables with a published status of a flag; return the status that holds."""
        key = status.environment, status.flag
        self.flags[key] = newest(self.flags.get(key), begun_by(status, self._latest()))
        return self.flags[key]
