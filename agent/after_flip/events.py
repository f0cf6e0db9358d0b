"""Events of monitors: a verdict changed, a habit drifted, something cannot be judged, or what came of a flip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent.after_flip.rules import BakeVerdict, EffectVerdict
from agent.commands.command import MAX_INSTANCES
from agent.config.flags import Flag
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.state.incidents import Incident
from detectors.conditions.spec import TriggerSpec
from detectors.state import BEFORE
from detectors.triggers.evaluation import Transition
from streams.condition import ShardCondition
from streams.monitor.drift import Drift
from streams.monitor.drift_watch import DriftTarget
from streams.monitor.observer import Exposure

_EFFECT_TYPES = {
    "effective": events.FLAG_EFFECTIVE,
    "ineffective": events.FLAG_INEFFECTIVE,
    "unknown": events.FLAG_EFFECT_UNKNOWN,
}
_MENDED = "every managed flag can be turned back"
_LIVE = "verdicts are live"
_BAKE_TYPES = {"recovered": events.FLAG_RECOVERED, "unknown": events.FLAG_RECOVERY_UNKNOWN}


def transition_event(spec: TriggerSpec, change: Transition, judged_at: float | None = None) -> Event:
    """A trigger's verdict changed. The id follows from trigger, time and verdict, so a replay repeats it.

    `judged_at` is the clock at the judgement: the command that follows from the verdict is sent before this event.
    """
    state = change.to.name.lower()
    since = {} if change.begin == BEFORE else {"flag_since": change.begin}
    return Event(
        type=events.trigger_type(state),
        subject=events.subject_of(spec.environment, spec.flag),
        data={
            "trigger": spec.name,
            "scope": str(spec.scope),
            "from": change.from_.name.lower(),
            "to": state,
            "value": _number(change.value),
            "threshold": _number(change.threshold),
            "samples": change.samples,
            "reason": change.reason,
            "action": spec.action,
            **since,
        },
        id=events.event_id("trigger", spec.environment, spec.flag, spec.name, str(change.t), state),
        time=float(change.t),
        recorded=judged_at,
    )


def drift_event(target: DriftTarget, found: Drift) -> Event:
    """A service's habit changed, for the worse or for the better. No command follows from it."""
    kind = events.DRIFT_WORSE if found.worse else events.DRIFT_BETTER
    return Event(
        type=kind,
        subject=f"{target.environment}/{target.service}",
        data={
            "metric": target.metric,
            "method": target.method,
            "residual": round(found.residual, 3),
            "before": round(found.before, 3),
        },
        id=events.event_id(
            "drift", target.environment, target.service, target.metric, target.method, str(found.second)
        ),
        time=float(found.second + 1),
    )


def inability_event(topic: str, partition: int, condition: ShardCondition, *, begun: bool, at: float) -> Event:
    """A partition of the partials cannot be judged, or can be again. Meanwhile its verdicts are unknown."""
    return Event(
        type=events.INABILITY,
        subject=f"{topic}/{partition}",
        data={"state": "begun" if begun else "ended", "status": condition.status, "reason": condition.detail or _LIVE},
        id=events.event_id("inability", topic, str(partition), str(begun), str(at)),
        time=at,
    )


def flips_event(topic: str, problems: Sequence[str], *, at: float) -> Event:
    """The problems that would stop a flip; none if they are over."""
    return Event(
        type=events.INABILITY,
        subject=topic,
        data={"state": "begun" if problems else "ended", "status": "unable", "reason": "; ".join(problems) or _MENDED},
        id=events.event_id("unable", topic, *problems, str(at)),
        time=at,
    )


def group_event(what: str, reason: str, *, begun: bool, at: float) -> Event:
    """A deployment lacks a role or its processes do not fit with each other; or that is over."""
    return events.inability(what, "not-armed", reason, begun=begun, at=at)


def effect_event(
    incident: Incident,
    flag: Flag,
    service: str,
    found: EffectVerdict,
    *,
    before: Exposure | None,
    serving: Sequence[str],
    changed_at: float,
    t: int,
) -> Event:
    """Whether a flip took effect in a service; published once per incident and service.

    `serving` has the instances that still serve another variant.
    """
    after = found.after
    data = _of_incident(incident, flag, service) | {
        "before_rps": None if before is None else before.others,
        "after_rps": None if after is None else after.rps,
    }
    if found.verdict == "effective" and after is not None:
        data["took_s"] = max(0.0, t - after.seconds - changed_at)
    else:
        data["reason"] = found.reason
    if found.verdict == "ineffective":
        data["instances"] = list(serving[:MAX_INSTANCES])
        data["check"] = (
            f"does {service} read {incident.flag} from {flag.backend}, from the very place that was written? Do all "
            "its instances hear of changes (cache, poll interval, connection)? Turn it off in the service meanwhile"
        )
    return _after_flip(_EFFECT_TYPES[found.verdict], incident, service, data, t)


def bake_event(incident: Incident, flag: Flag, found: BakeVerdict, *, t: int) -> Event:
    """Whether the metric that fired has recovered after the flip; published once per incident."""
    measured = found.measured
    data = _of_incident(incident, flag, incident.service) | {
        "metric": incident.metric,
        "scope": found.scope,
        "value": None if measured is None else _number(measured.value),
        "was": incident.value,
        "threshold": incident.threshold,
        "samples": 0 if measured is None else measured.samples,
    }
    if found.verdict == "unknown":
        data["reason"] = found.reason
    elif found.verdict != "recovered":
        data["verdict"] = found.verdict
        data["check"] = (
            f"the flag is {flag.safe!r} and stays so; look for another cause: other releases, other flags, what "
            f"{incident.service} depends on"
        )
    return _after_flip(_BAKE_TYPES.get(found.verdict, events.FLAG_NOT_RECOVERED), incident, incident.service, data, t)


def _of_incident(incident: Incident, flag: Flag, service: str) -> dict[str, Any]:
    return {
        "command_id": incident.command,
        "incident": incident.id,
        "trigger": incident.trigger,
        "flag": incident.flag,
        "environment": incident.environment,
        "service": service,
        "backend": flag.backend,
        "target": flag.safe,
    }


def _after_flip(type_: str, incident: Incident, service: str, data: dict[str, Any], t: int) -> Event:
    return Event(
        type=type_,
        subject=events.subject_of(incident.environment, incident.flag),
        data=data,
        id=events.event_id(incident.id, service, type_),
        time=float(t),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
