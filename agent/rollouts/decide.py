"""The only door to a rollout: pure, behind the controller, the command line and the page alike.

Forward needs evidence or an approver; towards safe is legal in every state that is not final. A state changes only on
what was verified: an order that was sent is no step that was taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.rollouts import by_person, by_program
from agent.rollouts.inputs import (
    RANKS,
    Abort,
    Actor,
    Approve,
    FlagChanged,
    Hold,
    Input,
    MadeSafe,
    Observation,
    Person,
    Pin,
    PreflightDone,
    Promote,
    ReportCheck,
    Resume,
    Role,
    StepRefused,
    StepVerified,
    Supersede,
    TriggerFired,
)
from agent.rollouts.record import FINAL, RolloutRecord
from agent.rollouts.transitions import Outcome, Refusal

Rule = Callable[[Any, RolloutRecord, Any, float], Outcome | Refusal]

_OF_PROGRAMS: dict[type, Rule] = {
    PreflightDone: by_program.preflight_done,
    StepVerified: by_program.step_verified,
    StepRefused: by_program.step_refused,
    Observation: by_program.observation,
    TriggerFired: by_program.trigger_fired,
    MadeSafe: by_program.made_safe,
    FlagChanged: by_program.flag_changed,
}
_OF_PERSONS: dict[type, tuple[Role, Rule]] = {
    Approve: ("approver", by_person.approve),
    Promote: ("approver", by_person.promote),
    Resume: ("approver", by_person.resume),
    Pin: ("approver", by_person.pin),
    Supersede: ("approver", by_person.supersede),
    ReportCheck: ("operator", by_person.report_check),
    Hold: ("operator", by_person.hold),
    Abort: ("operator", by_person.abort),
}


def decide(record: RolloutRecord, happened: Input, actor: Actor, now: float) -> Outcome | Refusal:
    """Return what follows from `happened` at `now` (Unix seconds): the next record and its orders, or a refusal."""
    kind = type(happened)
    if isinstance(actor, Person):
        if kind not in _OF_PERSONS:
            return Refusal(f"{kind.__name__} is reported by flipback itself, not by a person")
        least, rule = _OF_PERSONS[kind]
        if RANKS[actor.role] < RANKS[least]:
            return Refusal(f"needs the role {least}; {actor.name} is {actor.role}")
    elif kind not in _OF_PROGRAMS:
        return Refusal(f"{kind.__name__} is a person's order; {actor.name} is a program")
    else:
        rule = _OF_PROGRAMS[kind]
    if record.state in FINAL and not (record.state == "completed" and isinstance(happened, TriggerFired)):
        return Refusal(f"rollout {record.id} is {record.state}; start a new one")
    return rule(happened, record, actor, now)
