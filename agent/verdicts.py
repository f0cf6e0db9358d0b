"""Events of what was judged: a trigger's verdict changed, or nothing can be judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent import events
from agent.events import Event
from detectors.evaluate import Transition
from detectors.spec import TriggerSpec
from streams.monitor import Condition


def transition_event(spec: TriggerSpec, change: Transition) -> Event:
    """A trigger's verdict changed; the id follows from trigger, time and verdict, so a replay repeats it."""
    state = change.to.name.lower()
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
        },
        id=events.event_id("trigger", spec.environment, spec.flag, spec.name, str(change.t), state),
        time=float(change.t),
    )


def inability_event(topic: str, partition: int, condition: Condition, *, begun: bool, at: float) -> Event:
    """A partition of the partials cannot be judged, or can be again; what lies in it is unknown meanwhile."""
    return Event(
        type=events.INABILITY,
        subject=f"{topic}/{partition}",
        data={"state": "begun" if begun else "ended", "status": condition.status, "reason": condition.detail},
        id=events.event_id("inability", topic, str(partition), str(begun), str(at)),
        time=at,
    )


def flips_event(topic: str, problems: Sequence[str], *, at: float) -> Event:
    """What would stop a flip, or that nothing does any more."""
    return Event(
        type=events.INABILITY,
        subject=topic,
        data={"state": "begun" if problems else "ended", "status": "unable", "reason": "; ".join(problems)},
        id=events.event_id("unable", topic, *problems, str(at)),
        time=at,
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
