"""What is known of incidents and of the flags' states: read from compacted topics, kept as tables by key."""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.flag_state import FlagStatus
from streams.observer import Exposure

Outcome = Literal["commanded", "shadow"]
Effect = Literal["effective", "ineffective", "unknown"]
Bake = Literal["recovered", "no-better", "worse", "unknown"]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger that fired on a version of a flag; its key is `id`. Times are Unix seconds.

    `fired_at` is the evaluation (event time) at which it fired, `commanded_at` the clock when the command was
    acknowledged, `expires_at` when that command ends. `metric` (as it is written in a trigger), `scope`, `op`, `value`
    and `threshold` are what fired, `before` how much the flag's variants were asked for then; incidents of earlier
    versions of flipback have none of these.
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


class Aftermath(msgspec.Struct, frozen=True, kw_only=True):
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


_incident = msgspec.json.Decoder(Incident)
_aftermath = msgspec.json.Decoder(Aftermath)
_status = msgspec.json.Decoder(FlagStatus)
encode = msgspec.json.Encoder().encode


class Known:
    """The tables. What cannot be read is counted, never guessed."""

    def __init__(self) -> None:
        self.incidents: dict[str, Incident] = {}
        self.aftermaths: dict[tuple[str, str], Aftermath] = {}
        """By incident and service."""
        self.flags: dict[tuple[str, str], FlagStatus] = {}
        self.unreadable = 0

    def incident(self, value: bytes | None) -> None:
        """Take in a record of the incidents topic: an incident, or what was said after its flip."""
        for decoder in (_incident, _aftermath):
            try:
                record = decoder.decode(value or b"")
            except msgspec.MsgspecError:
                continue
            if isinstance(record, Incident):
                self.incidents[record.id] = record
            else:
                self._aftermath(record)
            return
        self.unreadable += 1

    def _aftermath(self, record: Aftermath) -> None:
        # What was said stays said: who wrote two records knows the second before the topic gives it the first.
        known = self.aftermaths.get((record.incident, record.service), record)
        self.aftermaths[record.incident, record.service] = msgspec.structs.replace(
            record, effect=record.effect or known.effect, bake=record.bake or known.bake
        )

    def flag(self, value: bytes | None) -> FlagStatus | None:
        """Take in a record of the flags topic and return what it says."""
        try:
            status = _status.decode(value or b"")
        except msgspec.MsgspecError:
            self.unreadable += 1
            return None
        self.flags[status.environment, status.flag] = status
        return status
