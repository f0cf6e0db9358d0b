"""What is known of incidents and of the flags' states: read from compacted topics, kept as tables by key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec

from agent.state.flags import FlagStatus, begun_by, newest
from streams.monitor.observer import Exposure
from streams.unreadable import UNREADABLE

Outcome = Literal["commanded", "shadow"]
Effect = Literal["effective", "ineffective", "unknown"]
Bake = Literal["recovered", "no-better", "worse", "unknown"]
ResultOutcome = Literal["applied", "already", "duplicate", "conflict", "ambiguous", "rejected"]
"""The values of agent.backends.contract.Outcome."""

MAX_DETAIL = 500
"""Characters of a result's detail."""

_MOST_UNTRUSTED = 256
"""Results of bytes that no known key has signed, kept and stored at most: anybody may write such bytes."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger that fired on a version of a flag; its key is `id`. Times are Unix seconds.

    `fired_at` is the evaluation (event time) at which it fired, `commanded_at` the clock when the command was
    acknowledged, `expires_at` when that command ends. `metric` (as it is written in a trigger), `scope`, `op`, `value`
    and `threshold` are what fired, `before` how much the flag's variants were asked for then; `sent` is the SHA-256 of
    the newest signed command as it was sent (agent.executor.audit.digest), `begun_at` the clock when the first of them
    was acknowledged. Incidents of earlier versions of flipback have none of these.
    """

    id: str
    environment: str
    flag: str
    service: str
    trigger: str
    flag_version: str
    outcome: Outcome
    command: str
    fired_at: float
    commanded_at: float
    expires_at: float
    metric: str | None = None
    scope: str | None = None
    op: Literal[">", "<"] | None = None
    value: float | None = None
    threshold: float | None = None
    before: Exposure | None = None
    sent: str | None = None
    begun_at: float | None = None

    @property
    def begun(self) -> float:
        """When its first command was acknowledged; of earlier versions of flipback the newest is all that is known."""
        return self.begun_at or self.commanded_at


class AfterFlip(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of a service after the flip that an incident led to; its key is "incident/service".

    A record of its own, beside the incident's, because a flag may be under watch in several services, whose monitors
    would overwrite each other. `bake` is None for all but the incident's service; both are None until they are said.
    """

    incident: str
    service: str
    effect: Effect | None = None
    bake: Bake | None = None

    @property
    def key(self) -> bytes:
        return f"{self.incident}/{self.service}".encode()


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor did with a command. The newest of a command replaces the earlier ones; `key` is its key.

    `sent` is the SHA-256 of the bytes that came (agent.executor.audit.digest), by which the monitor knows its command.
    `command`, `incident`, `environment` and `flag` are the command's, empty where no accepted key had signed the bytes.
    `outcome` is an agent.backends.contract.Outcome, `reason` an agent.commands.command.Reason where the command was
    refused. `retry_at` is the first moment at which the same command, issued anew, can succeed; None where nobody can
    say. Times are Unix seconds of the executor's clock.
    """

    sent: str
    outcome: ResultOutcome
    at: float
    command: str = ""
    incident: str = ""
    environment: str = ""
    flag: str = ""
    reason: str | None = None
    detail: Annotated[str, msgspec.Meta(max_length=MAX_DETAIL)] = ""
    retry_at: float | None = None

    @property
    def key(self) -> bytes:
        # Compaction keeps the newest of a key, so that untrusted bytes take 256 places at most.
        return f"result/{self.command or self.sent[:2]}".encode()


class Ill(msgspec.Struct, frozen=True, kw_only=True):
    """The flags (environment, flag) that are ill in what a monitor judges, at `at` by its clock.

    `by` is the process, `place` its first partition of the partials: who takes that over replaces the record.
    """

    by: str
    place: int
    at: float
    flags: list[tuple[str, str]]

    @property
    def key(self) -> bytes:
        return f"ill/{self.place}".encode()


_incident = msgspec.json.Decoder(Incident)
_aftermath = msgspec.json.Decoder(AfterFlip)
_result = msgspec.json.Decoder(CommandResult)
_ill = msgspec.json.Decoder(Ill)
_status = msgspec.json.Decoder(FlagStatus)
encode = msgspec.json.Encoder().encode


class StateTables:
    """The tables. What cannot be read is counted, never guessed.

    `latest` is the time after which nothing can have happened yet, in Unix seconds.
    """

    def __init__(self, latest: Callable[[], float] = lambda: math.inf) -> None:
        self._latest = latest
        self.incidents: dict[str, Incident] = {}
        self.aftermaths: dict[tuple[str, str], AfterFlip] = {}
        """By incident and service."""
        self.results: dict[str, CommandResult] = {}
        """The newest result of each command, by its id."""
        self.untrusted: dict[str, CommandResult] = {}
        """Results of bytes that no accepted key had signed, by their SHA-256; the newest 256."""
        self.flags: dict[tuple[str, str], FlagStatus] = {}
        self.ill: dict[int, Ill] = {}
        """What is ill in each monitor, by its place."""
        self.unreadable = 0
        self._indexed = 0
        self._by_place: dict[tuple[str, ...], list[str]] = {}

    def incident(self, value: bytes | None) -> None:
        """Take in a record of the incidents topic: an incident, a command's result, what was said after its flip, or
        what is ill in another monitor.
        """
        for decoder in (_incident, _aftermath, _result, _ill):
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
                self._aftermath(record)
            return
        self.unreadable += 1

    def result(self, record: CommandResult) -> None:
        """Take in what an executor did with a command."""
        if record.command:
            known = self.results.get(record.command)
            # A standby may hear of the command later than the one that carried it out, and know less.
            if known is None or record.at >= known.at:
                self.results[record.command] = record
            return
        self.untrusted.pop(record.sent, None)
        self.untrusted[record.sent] = record
        while len(self.untrusted) > _MOST_UNTRUSTED:
            del self.untrusted[next(iter(self.untrusted))]

    def of_flag(self, environment: str, flag: str) -> Iterator[Incident]:
        """The incidents of a flag, without a look at all there ever were."""
        return self._at("flag", environment, flag)

    def of_service(self, environment: str, service: str) -> Iterator[Incident]:
        """The incidents of a service."""
        return self._at("service", environment, service)

    def _at(self, *place: str) -> Iterator[Incident]:
        # Incidents are added and replaced, never taken away.
        if self._indexed != len(self.incidents):
            self._indexed = len(self.incidents)
            self._by_place = {}
            for one in self.incidents.values():
                self._by_place.setdefault(("flag", one.environment, one.flag), []).append(one.id)
                self._by_place.setdefault(("service", one.environment, one.service), []).append(one.id)
        return (self.incidents[name] for name in self._by_place.get(place, ()))

    def result_of(self, incident: Incident) -> CommandResult | None:
        """The newest result of the incident's own command, whether or not its executor accepted the key."""
        found = (self.results.get(incident.command), self.untrusted.get(incident.sent or ""))
        return max((one for one in found if one is not None), key=lambda one: one.at, default=None)

    def _aftermath(self, record: AfterFlip) -> None:
        # What was said stays said: who wrote two records knows the second before the topic gives it the first.
        known = self.aftermaths.get((record.incident, record.service), record)
        self.aftermaths[record.incident, record.service] = msgspec.structs.replace(
            record, effect=record.effect or known.effect, bake=record.bake or known.bake
        )

    def flag(self, value: bytes | None) -> FlagStatus | None:
        """Take in a record of the flags topic and return what it says, as it was published."""
        try:
            status = _status.decode(value or b"")
        except UNREADABLE:
            self.unreadable += 1
            return None
        self.see(status)
        return status

    def see(self, status: FlagStatus) -> FlagStatus:
        """Take in a flag's state that was published, and return the one that holds."""
        key = status.environment, status.flag
        self.flags[key] = newest(self.flags.get(key), begun_by(status, self._latest()))
        return self.flags[key]
