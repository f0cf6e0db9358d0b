"""The parts of `flipback status` in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from agent.commands.command import BY_HAND
from agent.heartbeats.heartbeat import AWAY_AFTER, EVERY, Member
from agent.state.by_hand import ByHand, restores
from agent.state.flags import FlagStatus
from agent.state.incidents import AfterFlip, CommandResult, Incident
from agent.views.status import Status
from detectors.conditions.units import shown
from streams.monitor.health import TriggerHealth


def verdicts(status: Status) -> str:
    """Return whether the verdicts are live, and the time up to which all partitions are judged."""
    live, until = "NOT LIVE" if status.problems else "live", status.evidence_until
    if until is None:
        return live
    clock = datetime.fromtimestamp(until, UTC).strftime("%H:%M:%S")
    return f"{live}, evidence up to {clock}Z, {max(0.0, status.at - until):.0f} s ago"


def overdue(member: Member) -> str:
    """Return the age of a process's overdue heartbeat. The process counts as alive, but may be dead already."""
    roles = ", ".join(member.beat.roles)
    return (
        f"{roles}: {member.beat.name} last heard {member.age:.0f} s ago, expected every {EVERY:.0f} s; "
        f"NOT ARMED after {AWAY_AFTER:.0f} s if nobody else has the role"
    )


def process_line(member: Member, rules: str) -> str:
    """Return a process with its roles; `rules` is the rules hash of the configuration at hand."""
    beat = member.beat
    roles = ", ".join(f"{role} {part}" for role, part in beat.roles.items())
    same = "these rules" if beat.rules == rules else f"other rules: {beat.rules[:12]}"
    state = "alive" if member.alive else "AWAY"
    if member.quiet or not member.alive:
        state += f", last heard {member.age:.0f} s ago"
    return f"{beat.name}: {state}; {roles}; {same}; flipback {beat.version}"


def flag_state_line(flag: FlagStatus) -> str:
    """Return a managed flag with its variant and version."""
    state = "safe" if flag.safe else "in use"
    return f"{flag.environment}/{flag.flag}: {flag.variant or 'mixed'} ({state}), version {flag.version}"


def trigger_line(trigger: TriggerHealth, metric: str) -> str:
    """Return a trigger with its verdict. `metric` gives the units of its numbers; empty if it is not configured."""
    value = "-" if trigger.value is None else shown(metric, trigger.value)
    limit = "-" if trigger.threshold is None else shown(metric, trigger.threshold)
    return (
        f"{trigger.state:8} {trigger.flag}/{trigger.trigger}  {trigger.scope}  value {value}, threshold {limit}, "
        f"{trigger.samples} samples  {trigger.reason}".rstrip()
    )


def incident_lines(status: Status) -> Iterator[tuple[float, str]]:
    """Yield a time to sort by and a line for each incident of a trigger and each rollback by hand.

    A restore by hand has no line of its own: it is part of the line of what it undid.
    """
    restored = restores(status.orders)
    for incident in status.incidents:
        parts = [f"{incident.environment}/{incident.flag}/{incident.trigger}"]
        parts.append(outcome(incident, status.results.get(incident.id)))
        parts += after_flip(incident, status.after(incident))
        parts += _restore_part(restored.get((incident.id, incident.flag)))
        # A command that is sent again, as after a resume, belongs to the same incident: show when the incident began.
        yield incident.begun, "  ".join([*parts, incident.id])
    for order in status.orders:
        if order.what == "rollback":
            reason = f": {order.reason!r}" if order.reason else ""
            parts = [f"{order.environment}/{order.flag}/{BY_HAND}", f"{order.outcome}, by {order.by}{reason}"]
            parts += _restore_part(restored.get((order.incident, order.flag)))
            yield order.at, "  ".join([*parts, order.incident])


def _restore_part(order: ByHand | None) -> Iterator[str]:
    if order is not None:
        yield f"put back by {order.by}" + (f": {order.reason!r}" if order.reason else "")


def outcome(incident: Incident, result: CommandResult | None) -> str:
    """Return the outcome of an incident's command, the incident's own if no executor has published a result."""
    if incident.outcome != "commanded" or result is None or result.outcome == "duplicate":
        return incident.outcome
    if result.outcome in ("applied", "already"):
        return {"applied": "turned back", "already": "was safe already"}[result.outcome]
    reason = f" {result.reason}" if result.reason else ""
    return f"NOT TURNED BACK, {result.outcome}{reason}" + (f": {result.detail}" if result.detail else "")


def after_flip(incident: Incident, found: Sequence[AfterFlip]) -> Iterator[str]:
    """Yield the effect and the recovery after an incident's flip, with the service's name if it is another service."""
    for one in found:
        where = "" if one.service == incident.service else f" in {one.service}"
        if one.effect is not None:
            yield ("effect unknown" if one.effect == "unknown" else one.effect) + where
        if one.bake is not None:
            yield {"recovered": "recovered", "unknown": "recovery unknown"}.get(one.bake, f"not recovered: {one.bake}")
