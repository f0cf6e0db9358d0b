"""Turn a firing trigger into a signed command, at most one per (flag, version of the flag, trigger).

Flags that are made safe together get one command each, all with the same incident. Each command names the version of
its own flag, and the flag whose trigger fired. The commands are written before the incident that latches them. After a
crash between the two the same commands are sent again; their ids follow from the incident, so the executor recognises
them. The other order could lose commands.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.commands.command import Cause, Command, FlipTarget, incident_id, issue, sign
from agent.config.flags import Flag
from agent.decisions.blame import Blame, Objection
from agent.decisions.fight import fight
from agent.decisions.follow_up import problem, resend_at
from agent.decisions.issuing import IssueSettings, for_command, incident_of, shadow_event
from agent.decisions.turns import FlagKey
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor import audit
from agent.state.flags import FlagStatus
from agent.state.incidents import Incident
from agent.state.state_tables import StateTables
from detectors.conditions.spec import TriggerSpec
from streams.monitor.evidence import FiringEvidence

_OUTAGE_OVER = 60.0
"""Seconds without an outage after which the next outage is announced as a new one."""


@dataclass(frozen=True, slots=True)
class CommanderOutputs:
    """Where the commander writes. Each function returns when the broker has acknowledged the record."""

    command: Callable[[bytes, bytes], Awaitable[None]]
    incident: Callable[[Incident], Awaitable[None]]
    event: Callable[[Event], Awaitable[None]]


class Commander:
    """Turns evidence into commands. `flags` has the managed flags by (environment, flag), `clock` returns Unix seconds.

    `settings` is the same for all commands; `blame` chooses among several flags of a service.
    """

    def __init__(
        self,
        flags: Mapping[tuple[str, str], Flag],
        tables: StateTables,
        settings: IssueSettings,
        *,
        outputs: CommanderOutputs,
        clock: Callable[[], float],
        blame: Blame,
    ) -> None:
        self._flags = flags
        self._tables = tables
        self._settings = settings
        self._outputs = outputs
        self._clock = clock
        self._blame = blame
        self._announced: set[str] = set()
        self._in_hand: set[str] = set()
        self._outage_at = -math.inf

    async def firing(self, t: int, evidences: Sequence[FiringEvidence], ill: Iterable[FlagKey] = ()) -> None:
        """Handle the triggers of a shard that fire at evaluation `t`, often none; called if any flag is ill.

        `ill` has the flags with a rollback trigger that fires or may soon (`streams.monitor.evaluated_second`).
        """
        # First, because which of several flags is to blame depends on all that are ill.
        self._blame.observe(evidences, ill, t, self._clock())
        # All at once: one after another, the last command would wait for the broker's acknowledgement of all others.
        await asyncio.gather(*map(self._fired, evidences))

    def expire(self) -> None:
        """Drop flags that are no longer ill; called after every evaluated second, also without ill flags."""
        self._blame.expire(self._clock())

    async def _fired(self, evidence: FiringEvidence) -> None:
        spec = evidence.spec
        if spec.action != "rollback":
            return
        status = self._tables.flags.get((spec.environment, spec.flag))
        if status is None:
            await self._unable(spec, "unknown", "state", "the state of the flag is not known: is an executor running?")
            return
        if status.safe or not _held_since_change(evidence, status):
            return
        if evidence.obstacle is not None:
            await self._unable(spec, status.version, "evidence", evidence.obstacle)
            return
        incident = incident_id(spec.environment, spec.flag, status.version, spec.name)
        if incident in self._in_hand:
            # Another shard is handling the same incident: two services of the flag have triggers of the same name.
            return
        latched = self._tables.incidents.get(incident)
        now = self._clock()
        if latched is not None and spec.shadow:
            return
        # An incident of shadow mode does not latch: it has turned nothing back.
        if latched is not None and latched.outcome == "commanded":
            result = self._tables.result_of(latched)
            if now <= resend_at(latched, result):
                found = problem(latched, status, result, now)
                if found is not None:
                    await self._unable(spec, status.version, *found, incident=latched.id)
                return
        if self._blame.early(evidence):
            return
        group = self._group(spec)
        objection = self._blame.objection(evidence, group, self._tables, now)
        if objection is not None:
            await self._held(spec, status, objection, now)
            return
        self._in_hand.add(incident)
        try:
            await self._command(evidence, status, now)
        finally:
            self._in_hand.discard(incident)

    async def _held(self, spec: TriggerSpec, status: FlagStatus, objection: Objection, now: float) -> None:
        """Announce why a flag is not turned back. An outage is announced once, not once per flag."""
        if not objection.shared:
            await self._unable(spec, status.version, objection.kind, objection.detail)
            return
        begun, self._outage_at = now - self._outage_at > _OUTAGE_OVER, now
        if begun:
            await self._outputs.event(
                Event(
                    type=events.INABILITY,
                    subject=events.AUTOMATION,
                    data={"state": "begun", "status": objection.kind, "reason": objection.detail},
                    id=events.event_id("inability", objection.kind, str(now)),
                    time=now,
                )
            )

    def _group(self, spec: TriggerSpec) -> set[FlagKey]:
        """Return the flags that are made safe together, without those that are known to be safe."""
        names = [spec.flag, *self._flags[spec.environment, spec.flag].together]
        keys = {(spec.environment, name) for name in names}
        return {key for key in keys if (seen := self._tables.flags.get(key)) is None or not seen.safe}

    async def _command(self, evidence: FiringEvidence, status: FlagStatus, now: float) -> None:
        spec = evidence.spec
        commands = [self._issue(evidence, spec.flag, spec.service, status.version, now)]
        cause = Cause(flag=spec.flag, flag_version=status.version)
        for name in self._flags[spec.environment, spec.flag].together:
            companion = self._tables.flags.get((spec.environment, name))
            if companion is None:
                # The other flags of the group are made safe nevertheless.
                reason = f"the state of flag {name!r}, which goes with this one, is not known: it is left as it is"
                await self._unable(spec, status.version, f"state of {name}", reason)
                continue
            service = self._flags[spec.environment, name].service
            commands.append(self._issue(evidence, name, service, companion.version, now, cause))
        sent = [sign(command, self._settings.key) for command in commands]
        if not spec.shadow:
            for command, raw in zip(commands, sent, strict=True):
                await self._outputs.command(f"{command.environment}/{command.flag}".encode(), raw)
        earlier = self._tables.incidents.get(commands[0].incident)
        incident = incident_of(commands[0], evidence, self._clock(), earlier, audit.digest(sent[0]))
        # Recorded now: the next trigger of the same second must not wait until the record is read back.
        self._tables.incidents[incident.id] = incident
        await self._outputs.incident(incident)
        if spec.shadow:
            for command in commands:
                await self._outputs.event(shadow_event(command))
            return
        for other, why in self._blame.passed_over(evidence, self._tables, now) if earlier is None else ():
            detail = f"passed over: {why}; flag {spec.flag!r} of the same service is turned back in its place"
            version = self._tables.flags[spec.environment, other.spec.flag].version
            await self._unable(other.spec, version, "passed over", detail, notice=True)
        undone = fight(incident, self._tables.of_flag(spec.environment, spec.flag))
        if undone is not None:
            await self._unable(spec, status.version, "fight", undone, incident=incident.id, notice=True)

    def _issue(
        self, evidence: FiringEvidence, name: str, service: str, version: str, now: float, cause: Cause | None = None
    ) -> Command:
        spec = evidence.spec
        flag = self._flags[spec.environment, name]
        return issue(
            FlipTarget(name, spec.environment, service, flag.backend, flag.safe),
            trigger=spec.name,
            flag_version=version,
            issued_at=now,
            rules_hash=self._settings.rules_hash,
            evidence=for_command(evidence),
            lifetime_s=self._settings.lifetime,
            cause=cause,
        )

    async def _unable(
        self,
        spec: TriggerSpec,
        version: str,
        kind: str,
        detail: str,
        *,
        incident: str | None = None,
        notice: bool = False,
    ) -> None:
        """Announce that a firing trigger cannot be acted upon, once per trigger, version and kind of reason.

        `incident` is the commanded one, if there is one. A `notice` does not stop the flip.
        """
        key = events.event_id("inability", spec.environment, spec.flag, spec.name, version, kind)
        if key in self._announced:
            return
        self._announced.add(key)
        await self._outputs.event(
            Event(
                type=events.INABILITY,
                subject=events.subject_of(spec.environment, spec.flag),
                data={
                    "trigger": spec.name,
                    "flag_version": version,
                    "reason": detail,
                    **({} if incident is None else {"incident": incident}),
                    **({"status": events.NOTICE} if notice else {}),
                },
                id=key,
                time=self._clock(),
            )
        )


def _held_since_change(evidence: FiringEvidence, status: FlagStatus) -> bool:
    """Has the condition held, and was the breach seen, since the flag got this version?

    Samples of an earlier version are no evidence against this one: if a person turns a flag on again after a rollback,
    the old window must not turn it back. The first version seen counts as having been there always.
    """
    if status.changed_at is None:
        return True
    if evidence.tier != "held":
        # The fast tier and proofs have no hold time, so all their evidence must be of this version.
        return evidence.since is not None and evidence.since >= status.changed_at
    spec = evidence.spec
    since = evidence.t - max(evidence.first_true_at, status.changed_at)
    if since < spec.condition.hold:
        return False
    # Usually the condition became true after the change. If before it, the newest seconds alone must show the breach.
    return evidence.first_true_at >= status.changed_at or (
        evidence.t - status.changed_at >= evidence.fresh_seconds and evidence.fresh
    )
