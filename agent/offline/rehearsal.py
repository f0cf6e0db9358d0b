"""What the commander would do in a recording: the same choices among flags, and each reason why it would do nothing.

The executor's part is left out: cooldown, limits over several services and the flag system itself need a live flag. A
flag that would be commanded is safe from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from agent.commands.command import incident_id
from agent.config.model import Config
from agent.decisions.blame import Blame, BlameRules, JudgedFlags
from agent.decisions.turns import FlagKey
from agent.state.flags import FlagStatus
from agent.state.incidents import Incident
from agent.state.state_tables import StateTables
from detectors.triggers.state_machine import State
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.evidence import FiringEvidence

_VERSION, _SAFE = "g1-recorded", "g2-safe"


class Hindrance(NamedTuple):
    """A firing trigger that leads to no command, with the reason in the commander's words."""

    evidence: FiringEvidence
    reason: str


class Rehearsal:
    """The managed flags of a configuration, all of them on from the beginning."""

    def __init__(self, config: Config) -> None:
        self._tables = StateTables()
        self._groups: dict[FlagKey, list[FlagKey]] = {}
        services: dict[FlagKey, list[str]] = {}
        for flag in config.flags:
            key = flag.environment, flag.flag
            services.setdefault(key, []).append(flag.service)
            self._groups[key] = [key, *((flag.environment, name) for name in flag.together)]
            self._tables.see(
                FlagStatus(
                    flag=flag.flag, environment=flag.environment, version=_VERSION, variant=None, safe=False, at=0.0
                )
            )
        self._blame = Blame(
            lambda: JudgedFlags(services, math.inf),
            BlameRules.of(config),
        )
        self._reported: set[tuple[str, str, str]] = set()

    def judge(self, second: EvaluatedSecond) -> Iterator[FiringEvidence | Hindrance]:
        """Yield the evidence of each command that would be sent, or published in shadow mode. If there would be no
        command, yield the reason once per firing.
        """
        for spec, change in second.transitions:
            if change.to != State.FIRING:
                self._reported = {one for one in self._reported if one[:2] != (spec.flag, spec.name)}
        self._blame.observe(second.firing, second.ill, second.time, second.time)
        for evidence in second.firing:
            spec = evidence.spec
            key = spec.environment, spec.flag
            incident = incident_id(*key, _VERSION, spec.name)
            if spec.action != "rollback" or self._tables.flags[key].safe or incident in self._tables.incidents:
                continue
            if evidence.obstacle is None and self._blame.early(evidence):
                continue
            kind, reason = self._objection(evidence, second.time)
            if reason is None:
                self._record_incident(evidence, incident)
                yield evidence
            elif (spec.flag, spec.name, kind) not in self._reported:
                self._reported.add((spec.flag, spec.name, kind))
                yield Hindrance(evidence, reason)

    def _objection(self, evidence: FiringEvidence, now: float) -> tuple[str, str | None]:
        if evidence.obstacle is not None:
            return "evidence", evidence.obstacle
        group = self._groups[evidence.spec.environment, evidence.spec.flag]
        wanted = {key for key in group if not self._tables.flags[key].safe}
        objection = self._blame.objection(evidence, wanted, self._tables, now)
        return ("", None) if objection is None else (objection.kind, objection.detail)

    def _record_incident(self, evidence: FiringEvidence, incident: str) -> None:
        spec, at = evidence.spec, float(evidence.t)
        self._tables.incidents[incident] = Incident(
            id=incident,
            environment=spec.environment,
            flag=spec.flag,
            service=spec.service,
            trigger=spec.name,
            flag_version=_VERSION,
            outcome="shadow" if spec.shadow else "commanded",
            command="",
            fired_at=at,
            commanded_at=at,
            expires_at=math.inf,
        )
        if not spec.shadow:
            for key in self._groups[spec.environment, spec.flag]:
                seen = self._tables.flags[key]
                if not seen.safe:
                    self._tables.see(msgspec.structs.replace(seen, version=_SAFE, safe=True, at=at, changed_at=at))
