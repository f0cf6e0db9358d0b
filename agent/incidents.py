"""What is known of incidents and of the flags' states: read from compacted topics, kept as tables by key."""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.flag_state import FlagStatus

Outcome = Literal["commanded", "shadow"]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger that fired on a version of a flag; its key is `id`. Times are Unix seconds.

    `fired_at` is the evaluation (event time) at which it fired, `commanded_at` the clock when the command was
    acknowledged, `expires_at` when that command ends.
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


_incident = msgspec.json.Decoder(Incident)
_status = msgspec.json.Decoder(FlagStatus)
encode = msgspec.json.Encoder().encode


class Known:
    """The tables. What cannot be read is counted, never guessed."""

    def __init__(self) -> None:
        self.incidents: dict[str, Incident] = {}
        self.flags: dict[tuple[str, str], FlagStatus] = {}
        self.unreadable = 0

    def incident(self, value: bytes | None) -> None:
        """Take in a record of the incidents topic."""
        try:
            incident = _incident.decode(value or b"")
        except msgspec.MsgspecError:
            self.unreadable += 1
            return
        self.incidents[incident.id] = incident

    def flag(self, value: bytes | None) -> FlagStatus | None:
        """Take in a record of the flags topic and return what it says."""
        try:
            status = _status.decode(value or b"")
        except msgspec.MsgspecError:
            self.unreadable += 1
            return None
        self.flags[status.environment, status.flag] = status
        return status
