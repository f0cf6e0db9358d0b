"""From a firing trigger to a signed command, at most one for each (flag, version of the flag, trigger).

Flags that are made safe together get a command each, all of one incident: each names the version of its own flag and
the flag whose trigger fired. The commands are written before the incident that latches them: a crash between the two
sends the same commands again, whose ids follow from the incident, and the executor knows them. The other order could
lose them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent import events
from agent.blame import Blame, FlagKey, Objection
from agent.commands import MAX_INSTANCES, MAX_VARIANTS, Cause, Command, incident_id, issue, sign
from agent.commands import Evidence as CommandEvidence
from agent.config import Flag
from agent.events import Event
from agent.flag_state import FlagStatus
from agent.incidents import Incident, Known
from agent.keys import PrivateKey
from detectors.cells import COUNTS, REQUESTS
from detectors.spec import TriggerSpec
from streams.evidence import Evidence

UNSEEN_AFTER = 30.0
"""Seconds after a command within which the flag must be seen safe; then the inability is announced (promise P3)."""

_RESEND_MARGIN = 5.0

_OUTAGE_OVER = 60.0
"""Seconds without an outage of everything after which another is told anew."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the commander writes; each returns when the broker has acknowledged."""

    command: Callable[[bytes, bytes], Awaitable[None]]
    incident: Callable[[Incident], Awaitable[None]]
    event: Callable[[Event], Awaitable[None]]


class Commander:
    """Turns evidence into commands. `flags` are the managed ones by (environment, flag), `clock` is Unix seconds."""

    def __init__(
        self,
        flags: Mapping[tuple[str, str], Flag],
        known: Known,
        key: PrivateKey,
        *,
        rules_hash: str,
        lifetime: float,
        outputs: Outputs,
        clock: Callable[[], float],
        blame: Blame,
    ) -> None:
        self._flags = flags
        self._known = known
        self._key = key
        self._rules_hash = rules_hash
        self._lifetime = lifetime
        self._outputs = outputs
        self._clock = clock
        self._blame = blame
        self._announced: set[str] = set()
        self._in_hand: set[str] = set()
        self._outage_at = -math.inf

    async def firing(self, t: int, evidences: Sequence[Evidence], ill: Iterable[FlagKey] = ()) -> None:
        """Handle the triggers of a shard that fire at evaluation `t`; called for every one in which a flag is ill.

        `ill` are those flags: of `streams.monitor.Second`.
        """
        self._blame.observe(evidences, ill, t, self._clock())
        # In turn, the last of an outage would wait for the broker's word on all before.
        await asyncio.gather(*map(self._fired, evidences))

    async def _fired(self, evidence: Evidence) -> None:
        spec = evidence.spec
        if spec.action != "rollback":
            return
        status = self._known.flags.get((spec.environment, spec.flag))
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
            # Two services of the flag, in different shards, have triggers of one name.
            return
        latched = self._known.incidents.get(incident)
        now = self._clock()
        if latched is not None and not self._to_be_sent_again(latched, now):
            if latched.outcome == "commanded" and now - latched.commanded_at > UNSEEN_AFTER:
                await self._unable(
                    spec,
                    status.version,
                    "unseen",
                    f"flag still {status.variant!r} {UNSEEN_AFTER:.0f} s after the command",
                )
            return
        if self._blame.early(evidence):
            return
        objection = self._blame.objection(evidence, self._known.flags, self._known.incidents.values(), now)
        if objection is not None:
            await self._held(spec, status, objection, now)
            return
        self._in_hand.add(incident)
        try:
            await self._command(evidence, status, now)
        finally:
            self._in_hand.discard(incident)

    async def _held(self, spec: TriggerSpec, status: FlagStatus, objection: Objection, now: float) -> None:
        """Say why a flag is not turned back; of an outage of everything once, not once a flag."""
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

    def _to_be_sent_again(self, incident: Incident, now: float) -> bool:
        """An expired command that left the flag as it was has reached nobody; it is sent anew under the same id."""
        return incident.outcome == "commanded" and now > incident.expires_at + _RESEND_MARGIN

    async def _command(self, evidence: Evidence, status: FlagStatus, now: float) -> None:
        spec = evidence.spec
        commands = [self._issue(evidence, spec.flag, spec.service, status.version, now)]
        cause = Cause(flag=spec.flag, flag_version=status.version)
        for name in self._flags[spec.environment, spec.flag].together:
            companion = self._known.flags.get((spec.environment, name))
            if companion is None:
                # The others are made safe all the same.
                reason = f"the state of flag {name!r}, which goes with this one, is not known: it is left as it is"
                await self._unable(spec, status.version, f"state of {name}", reason)
                continue
            service = self._flags[spec.environment, name].service
            commands.append(self._issue(evidence, name, service, companion.version, now, cause))
        if not spec.shadow:
            for command in commands:
                key = f"{command.environment}/{command.flag}".encode()
                await self._outputs.command(key, sign(command, self._key))
        incident = _incident(commands[0], evidence, self._clock())
        # Known at once: the same second's next trigger must not wait for the record to come back.
        self._known.incidents[incident.id] = incident
        await self._outputs.incident(incident)
        if spec.shadow:
            for command in commands:
                await self._outputs.event(_shadow_event(command))

    def _issue(
        self, evidence: Evidence, name: str, service: str, version: str, now: float, cause: Cause | None = None
    ) -> Command:
        spec = evidence.spec
        flag = self._flags[spec.environment, name]
        return issue(
            flag=name,
            environment=spec.environment,
            service=service,
            backend=flag.backend,
            target=flag.safe,
            trigger=spec.name,
            flag_version=version,
            issued_at=now,
            rules_hash=self._rules_hash,
            evidence=_for_command(evidence),
            lifetime_s=self._lifetime,
            cause=cause,
        )

    async def _unable(self, spec: TriggerSpec, version: str, kind: str, detail: str) -> None:
        """Announce, once a trigger, version and kind of reason, that a firing trigger cannot be followed."""
        key = events.event_id("inability", spec.environment, spec.flag, spec.name, version, kind)
        if key in self._announced:
            return
        self._announced.add(key)
        await self._outputs.event(
            Event(
                type=events.INABILITY,
                subject=events.subject_of(spec.environment, spec.flag),
                data={"trigger": spec.name, "flag_version": version, "reason": detail},
                id=key,
                time=self._clock(),
            )
        )


def _held_since_change(evidence: Evidence, status: FlagStatus) -> bool:
    """Was the condition held, and the breach seen, since the flag got this version?

    What was measured under an earlier version says nothing of this one; a person who turns a flag on again after a
    rollback would otherwise be overruled by the old window. The first version seen has been there all along.
    """
    if status.changed_at is None:
        return True
    if evidence.tier != "held":
        # It insists by its evidence, not by a time: all of that must be of this version.
        return evidence.since is not None and evidence.since >= status.changed_at
    spec = evidence.spec
    since = evidence.t - max(evidence.first_true_at, status.changed_at)
    if since < spec.condition.hold:
        return False
    # Held without a break since after the change: the ordinary case. Else the newest seconds must show it.
    return evidence.first_true_at >= status.changed_at or (
        evidence.t - status.changed_at >= evidence.fresh_seconds and evidence.fresh
    )


def _for_command(evidence: Evidence) -> CommandEvidence:
    return CommandEvidence(
        metric=evidence.spec.condition.label,
        scope=str(evidence.spec.scope),
        window=evidence.window,
        op=evidence.spec.condition.op,
        threshold=evidence.threshold,
        value=evidence.value,
        samples=evidence.samples,
        counts=dict(evidence.counts),
        sources=evidence.sources,
        instances=tuple(evidence.instances[:MAX_INSTANCES]),
        age_s=evidence.age,
        first_true_at=evidence.first_true_at,
        fired_at=evidence.t,
        control=evidence.control,
        tier=evidence.tier,
        evidence=evidence.evidence,
        bound=evidence.bound,
        null_rate=evidence.null_rate,
        since=evidence.since,
        variants=_by_variant(evidence),
    )


def _by_variant(evidence: Evidence) -> dict[str, dict[str, int]]:
    """The counts of each variant of the flag, of the busiest ones where there are many."""
    found = {} if evidence.variants is None else evidence.variants()
    busiest = sorted(found, key=lambda name: -int(found[name][REQUESTS]))[:MAX_VARIANTS]
    return {name: dict(zip(COUNTS, found[name].tolist(), strict=True)) for name in sorted(busiest)}


def _incident(command: Command, evidence: Evidence, now: float) -> Incident:
    return Incident(
        id=command.incident,
        environment=command.environment,
        flag=command.flag,
        service=command.service,
        trigger=command.trigger,
        flag_version=command.flag_version,
        outcome="shadow" if evidence.spec.shadow else "commanded",
        command=command.id,
        fired_at=evidence.t,
        commanded_at=now,
        expires_at=command.expires_at,
        metric=command.evidence.metric,
        scope=command.evidence.scope,
        op=evidence.spec.condition.op,
        value=evidence.value,
        threshold=evidence.threshold,
        before=None if evidence.exposure is None else evidence.exposure(),
    )


def _shadow_event(command: Command) -> Event:
    return Event(
        type=events.COMMAND_SHADOWED,
        subject=events.subject_of(command.environment, command.flag),
        data={
            "command": command.id,
            "incident": command.incident,
            "trigger": command.trigger,
            "target": command.target,
        },
        id=events.event_id(command.id, events.COMMAND_SHADOWED),
        time=command.issued_at,
    )
