"""Make the evidence of a command, its incident, and its event in shadow mode."""

from __future__ import annotations

from dataclasses import dataclass

from agent.commands.command import MAX_INSTANCES, MAX_VARIANTS, Command, Evidence
from agent.commands.keys import PrivateKey
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.state.incidents import Incident
from detectors.cells import COUNTS, REQUESTS
from streams.monitor.evidence import FiringEvidence


@dataclass(frozen=True, slots=True)
class IssueSettings:
    """What all commands share: the `key` that signs them, the hash of the rules, and their `lifetime` in seconds."""

    key: PrivateKey
    rules_hash: str
    lifetime: float


def for_command(evidence: FiringEvidence) -> Evidence:
    return Evidence(
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


def _by_variant(evidence: FiringEvidence) -> dict[str, dict[str, int]]:
    """Return the counts of each variant of the flag, at most of the busiest `MAX_VARIANTS`."""
    found = {} if evidence.variants is None else evidence.variants()
    busiest = sorted(found, key=lambda name: -int(found[name][REQUESTS]))[:MAX_VARIANTS]
    return {name: dict(zip(COUNTS, found[name].tolist(), strict=True)) for name in sorted(busiest)}


def incident_of(
    command: Command, evidence: FiringEvidence, now: float, earlier: Incident | None, sent: str
) -> Incident:
    """Make the incident of a command that was just acknowledged. If it was sent again, `earlier` is its incident."""
    again = earlier is not None and earlier.outcome == "commanded"
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
        sent=sent,
        begun_at=earlier.begun if earlier is not None and again else now,
    )


def shadow_event(command: Command) -> Event:
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
