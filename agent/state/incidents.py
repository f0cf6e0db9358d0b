"""The records of the incidents topic: an incident, what follows its flip, a command's result, what is ill elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from streams.monitor.observer import Exposure

Outcome = Literal["commanded", "shadow"]
Effect = Literal["effective", "ineffective", "unknown"]
Bake = Literal["recovered", "no-better", "worse", "unknown"]
ResultOutcome = Literal["applied", "already", "duplicate", "conflict", "ambiguous", "rejected"]
"""The values of agent.backends.contract.Outcome."""

MAX_DETAIL = 500
"""Characters of a result's detail."""


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


encode = msgspec.json.Encoder().encode
