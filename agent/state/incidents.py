"""The records of the incidents topic: incidents, verdicts after a flip, results of commands, and ill flags."""

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
    and `threshold` describe the condition that fired, `before` the flag's exposure at that time; `sent` is the
    SHA-256 of the newest signed command as it was sent (agent.executor.audit.digest), `begun_at` the clock when the
    first command was acknowledged. Incidents of earlier versions of flipback have none of these.
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
        """When its first command was acknowledged; the newest, in an incident of an earlier version of flipback."""
        return self.begun_at or self.commanded_at


class AfterFlip(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts on a service after the flip of an incident; its key is "incident/service".

    It is separate from the incident's record, because a flag may be watched in several services, whose monitors would
    overwrite each other. `bake` is None for all but the incident's service; both are None until they are decided.
    """

    incident: str
    service: str
    effect: Effect | None = None
    bake: Bake | None = None

    @property
    def key(self) -> bytes:
        return f"{self.incident}/{self.service}".encode()


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor did with a command. The newest result of a command replaces the earlier ones; `key` is its key.

    `sent` is the SHA-256 of the received bytes (agent.executor.audit.digest): the monitor knows its command by it.
    `command`, `incident`, `environment` and `flag` are the command's, empty if no accepted key had signed the bytes.
    `outcome` is an agent.backends.contract.Outcome, `reason` an agent.commands.command.Reason if the command was
    refused. `retry_at` is the first moment at which the same command, issued again, can succeed; None if that is
    unknown. Times are Unix seconds of the executor's clock.
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
    """The flags (environment, flag) that are ill among those that a monitor judges, at `at` by its clock.

    `by` is the process, `place` its first partition of the partials: a process that takes it over replaces the record.
    """

    by: str
    place: int
    at: float
    flags: list[tuple[str, str]]

    @property
    def key(self) -> bytes:
        return f"ill/{self.place}".encode()


encode = msgspec.json.Encoder().encode
