"""The answer of `flipback status`: would a flip happen now, and the state of flags, triggers, incidents, processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from agent.armed.verdict import Arming
from agent.config.load import rules_hash
from agent.config.model import Config
from agent.deployment.outside import look
from agent.heartbeats.heartbeat import Member
from agent.ledger.identity import separate_ledgers
from agent.telemetry.unflagged import sentence
from agent.views.status import Status, read_status
from agent.views.status_lines import (
    flag_state_line,
    incident_lines,
    overdue,
    process_line,
    trigger_line,
    verdicts,
)

SHOWN_INCIDENTS = 10
SHOWN_PROCESSES = 20


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The state of a deployment as the topics show it; `rules` is the hash of the configuration at hand."""

    config: Config
    status: Status
    arming: Arming
    members: list[Member]
    rules: str

    @property
    def notes(self) -> list[str]:
        """What a person should know although it stops no flip."""
        separate = separate_ledgers(self.members)
        quiet = [overdue(one) for one in self.members if one.quiet]
        return [*quiet, *([] if separate is None else [separate]), *map(sentence, self.status.without_flag)]

    def as_json(self) -> dict[str, Any]:
        """Return the report as the object that `flipback status --json` prints."""
        status, shown = self.status, self.status.incidents[:SHOWN_INCIDENTS]
        return {
            "armed": self.arming.armed,
            "obstacles": self.arming.obstacles,
            "notes": self.notes,
            "rules": self.rules,
            "processes": [
                {**msgspec.to_builtins(one.beat), "alive": one.alive, "heard_s_ago": round(one.age, 1)}
                for one in self.members
            ],
            "live": not status.problems,
            "problems": status.problems,
            "evidence_until": status.evidence_until,
            "flags": status.flags,
            "triggers": status.triggers,
            "without_flag": status.without_flag,
            "incidents": shown,
            "results": [status.results[incident.id] for incident in shown if incident.id in status.results],
            "orders": status.orders[:SHOWN_INCIDENTS],
            "aftermaths": [one for incident in shown for one in status.after(incident)],
        }

    def lines(self) -> Iterator[str]:
        """Yield the report in lines for a person, the newest incidents and processes only."""
        status = self.status
        yield from self.arming.lines()
        for note in self.notes:
            yield f"note: {note}"
        yield f"rules     {self.rules[:12]} in this file"
        yield "processes" if self.members else "processes  none"
        for member in sorted(self.members, key=lambda member: member.age)[:SHOWN_PROCESSES]:
            yield f"  {process_line(member, self.rules)}"
        yield f"verdicts  {verdicts(status)}"
        for problem in status.problems:
            # The obstacles of the verdict contain most of the problems.
            if not any(problem in one.why for one in self.arming.obstacles):
                yield f"  ! {problem}"
        yield "flags"
        for flag in status.flags:
            yield f"  {flag_state_line(flag)}"
        yield "triggers"
        metrics = {(spec.flag, spec.name): spec.condition.label for spec in self.config.trigger_specs()}
        for trigger in status.triggers:
            yield f"  {trigger_line(trigger, metrics.get((trigger.flag, trigger.trigger), ''))}"
        found = sorted(incident_lines(status), reverse=True)[:SHOWN_INCIDENTS]
        yield "incidents" if found else "incidents  none"
        for at, line in found:
            yield f"  {datetime.fromtimestamp(at, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}  {line}"


async def read_report(config: Config) -> StatusReport:
    """Read the topics. Raises TopicError if a topic does not exist or no broker answers."""
    status = await read_status(config)
    arming, members = await look(config, status)
    return StatusReport(config, status, arming, members, rules_hash(config))
