"""`flipback status`: flags, incidents and verdicts as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands.command import BY_HAND
from agent.state.by_hand import ByHand, restores

if TYPE_CHECKING:
    from agent.armed.verdict import Arming
    from agent.heartbeats.heartbeat import Member
    from agent.state.incidents import AfterFlip, CommandResult, Incident
    from agent.views.status import Status
    from streams.monitor.health import TriggerHealth

SHOWN_INCIDENTS = 10
SHOWN_PROCESSES = 20


@click.command("status")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(path: Path, as_json: bool) -> int:
    """Say whether a flip would happen now: ARMED, or NOT ARMED, why, and what to do. Then show the state of every
    managed flag, the verdict of every trigger and the newest incidents.

    Reads flipback's topics; needs no running process. Exit status 0 where it is armed, else 1.
    """
    import msgspec

    from agent.config.load import load, rules_hash
    from agent.deployment.outside import look
    from agent.ledger.identity import separate_ledgers
    from agent.telemetry.unflagged import sentence
    from agent.views.status import read_status
    from streams.errors import TopicError

    config = load(path)

    async def read() -> tuple[Status, Arming, list[Member]]:
        status = await read_status(config)
        return status, *await look(config, status)

    try:
        status, arming, members = asyncio.run(read())
    except TopicError as error:
        unread = {"armed": False, "obstacles": [{"what": "kafka", "why": str(error)}]}
        click.echo(msgspec.json.encode(unread) if as_json else f"NOT ARMED: {error}")
        return 1
    problems, shown = status.problems, status.incidents[:SHOWN_INCIDENTS]
    separate = separate_ledgers(members)
    notes = [*(overdue(one) for one in members if one.quiet), *([] if separate is None else [separate])]
    notes += map(sentence, status.without_flag)
    exit_status, rules = 0 if arming.armed else 1, rules_hash(config)
    if as_json:
        body = {
            "armed": arming.armed,
            "obstacles": arming.obstacles,
            "notes": notes,
            "rules": rules,
            "processes": [
                {**msgspec.to_builtins(one.beat), "alive": one.alive, "heard_s_ago": round(one.age, 1)}
                for one in members
            ],
            "live": not problems,
            "problems": problems,
            "evidence_until": status.evidence_until,
            "flags": status.flags,
            "triggers": status.triggers,
            "without_flag": status.without_flag,
            "incidents": shown,
            "results": [status.results[incident.id] for incident in shown if incident.id in status.results],
            "orders": status.orders[:SHOWN_INCIDENTS],
            "aftermaths": [said for incident in shown for said in status.after(incident)],
        }
        click.echo(msgspec.json.encode(body))
        return exit_status
    for line in arming.lines():
        click.echo(line)
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(f"rules     {rules[:12]} in this file")
    click.echo("processes" if members else "processes  none")
    for member in sorted(members, key=lambda member: member.age)[:SHOWN_PROCESSES]:
        click.echo(f"  {_process(member, rules)}")
    click.echo(f"verdicts  {verdicts(status)}")
    for problem in problems:
        if not any(problem in one.why for one in arming.obstacles):
            click.echo(f"  ! {problem}")
    click.echo("flags")
    for flag in status.flags:
        state = "safe" if flag.safe else "in use"
        click.echo(f"  {flag.environment}/{flag.flag}: {flag.variant or 'mixed'} ({state}), version {flag.version}")
    click.echo("triggers")
    metrics = {(spec.flag, spec.name): spec.condition.label for spec in config.trigger_specs()}
    for trigger in status.triggers:
        click.echo(f"  {trigger_line(trigger, metrics.get((trigger.flag, trigger.trigger), ''))}")
    found = sorted(listed(status), reverse=True)[:SHOWN_INCIDENTS]
    click.echo("incidents" if found else "incidents  none")
    for at, line in found:
        click.echo(f"  {datetime.fromtimestamp(at, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}  {line}")
    return exit_status


def verdicts(status: Status) -> str:
    """Are the verdicts live, and up to when everything has been judged."""
    live, until = "NOT LIVE" if status.problems else "live", status.evidence_until
    if until is None:
        return live
    clock = datetime.fromtimestamp(until, UTC).strftime("%H:%M:%S")
    return f"{live}, evidence up to {clock}Z, {max(0.0, status.at - until):.0f} s ago"


def overdue(member: Member) -> str:
    """The age of heartbeats that should have come: until it counts as away, the process may be dead already."""
    from agent.heartbeats.heartbeat import AWAY_AFTER, EVERY

    roles = ", ".join(member.beat.roles)
    return (
        f"{roles}: {member.beat.name} last heard {member.age:.0f} s ago, expected every {EVERY:.0f} s; "
        f"NOT ARMED after {AWAY_AFTER:.0f} s if nobody else has the role"
    )


def trigger_line(trigger: TriggerHealth, metric: str) -> str:
    """A trigger in a line, its numbers in the unit of `metric`, which is empty where the file does not know it."""
    from detectors.conditions.units import shown

    value = "-" if trigger.value is None else shown(metric, trigger.value)
    limit = "-" if trigger.threshold is None else shown(metric, trigger.threshold)
    return (
        f"{trigger.state:8} {trigger.flag}/{trigger.trigger}  {trigger.scope}  value {value}, threshold {limit}, "
        f"{trigger.samples} samples  {trigger.reason}".rstrip()
    )


def listed(status: Status) -> Iterator[tuple[float, str]]:
    """Incidents of triggers and rollbacks by hand, each with its time and what came of it; the id is the last word."""
    restored = restores(status.orders)
    for incident in status.incidents:
        words = [f"{incident.environment}/{incident.flag}/{incident.trigger}"]
        words.append(outcome(incident, status.results.get(incident.id)))
        words += after_flip(incident, status.after(incident))
        words += _restored(restored.get((incident.id, incident.flag)))
        # A command that is sent again, as after a resume, begins no other incident.
        yield incident.begun, "  ".join([*words, incident.id])
    for order in status.orders:
        if order.what == "rollback":
            reason = f": {order.reason!r}" if order.reason else ""
            words = [f"{order.environment}/{order.flag}/{BY_HAND}", f"{order.outcome}, by {order.by}{reason}"]
            words += _restored(restored.get((order.incident, order.flag)))
            yield order.at, "  ".join([*words, order.incident])


def _restored(order: ByHand | None) -> Iterator[str]:
    if order is not None:
        yield f"put back by {order.by}" + (f": {order.reason!r}" if order.reason else "")


def outcome(incident: Incident, result: CommandResult | None) -> str:
    """What became of an incident's command, as far as an executor has told."""
    if incident.outcome != "commanded" or result is None or result.outcome == "duplicate":
        return incident.outcome
    if result.outcome in ("applied", "already"):
        return {"applied": "turned back", "already": "was safe already"}[result.outcome]
    reason = f" {result.reason}" if result.reason else ""
    return f"NOT TURNED BACK, {result.outcome}{reason}" + (f": {result.detail}" if result.detail else "")


def _process(member: Member, rules: str) -> str:
    """A process in a line; away ones too, for a day."""
    beat = member.beat
    roles = ", ".join(f"{role} {part}" for role, part in beat.roles.items())
    same = "these rules" if beat.rules == rules else f"other rules: {beat.rules[:12]}"
    state = "alive" if member.alive else "AWAY"
    if member.quiet or not member.alive:
        state += f", last heard {member.age:.0f} s ago"
    return f"{beat.name}: {state}; {roles}; {same}; flipback {beat.version}"


def after_flip(incident: Incident, said: Sequence[AfterFlip]) -> Iterator[str]:
    """What was said after an incident's flip, a few words a service; of other services than its own their name too."""
    for one in said:
        where = "" if one.service == incident.service else f" in {one.service}"
        if one.effect is not None:
            yield ("effect unknown" if one.effect == "unknown" else one.effect) + where
        if one.bake is not None:
            yield {"recovered": "recovered", "unknown": "recovery unknown"}.get(one.bake, f"not recovered: {one.bake}")
