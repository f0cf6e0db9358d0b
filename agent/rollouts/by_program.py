"""What follows from what flipback observed: the rules of the controller's own inputs."""

from __future__ import annotations

from msgspec import structs

from agent.rollouts.gate import observe
from agent.rollouts.inputs import (
    Actor,
    FlagChanged,
    MadeSafe,
    Observation,
    PreflightDone,
    StepRefused,
    StepVerified,
    TriggerFired,
)
from agent.rollouts.record import NOTHING_COUNTED, RolloutRecord, last_place
from agent.rollouts.transitions import Outcome, Refusal, forward, order_of, paused, rolling_back

ORDER_AGAIN_S = 10.0
"""Seconds after which an order without an answer is given again."""


def preflight_done(happened: PreflightDone, record: RolloutRecord, actor: Actor, now: float) -> Outcome | Refusal:
    if record.state != "pending":
        return Refusal(f"preflight belongs to the start; rollout {record.id} is {record.state}")
    if happened.verdict != "met":
        return Outcome(record.changed(cause=f"preflight is {happened.verdict}: {happened.text}"))
    return forward(record, actor, now, "preflight is met")


def step_verified(happened: StepVerified, record: RolloutRecord, actor: Actor, now: float) -> Outcome | Refusal:
    if record.state == "rolling-back":
        return Refusal("the rollout is being rolled back")
    if happened.place != record.place or record.verified_at is not None:
        return Refusal(f"step {happened.place} is not the one that was ordered last, {record.place}")
    baking = record.state == "progressing" and happened.place == last_place(record.spec)
    return Outcome(
        record.changed(
            state="baking" if baking else record.state,
            since=now if baking else record.since,
            percent=happened.percent,
            version=happened.version,
            verified_at=now,
            **NOTHING_COUNTED,
            not_met_announced=False,
            waived=False,
        )
    )


def step_refused(happened: StepRefused, record: RolloutRecord, actor: Actor, now: float) -> Outcome | Refusal:
    if record.state == "rolling-back" or happened.place != record.place or record.verified_at is not None:
        return Refusal(f"step {happened.place} is not under way")
    if happened.conflict:
        return Outcome(paused(record, "conflict", happened.text, actor, now))
    return Outcome(record.changed(cause=happened.text))


def observation(happened: Observation, record: RolloutRecord, actor: Actor, now: float) -> Outcome | Refusal:
    if record.state == "paused" and record.reason == "pin":
        if record.pinned_until is not None and now >= record.pinned_until:
            return Outcome(paused(record, "person", "the pin has expired", actor, now))
        return Outcome(record)
    asked = record.state == "paused" and record.reason == "approval"
    if record.state not in ("progressing", "baking") and not asked:
        return Outcome(record)
    if record.verified_at is None:
        return Outcome(record) if asked else _order_again(record, now)
    counted, reading = observe(record, happened.conditions, now)
    gate = counted.spec.gate
    if asked:
        if reading.open:
            return Outcome(counted, gate=reading)
        again = counted.changed(state="progressing", since=now, reason=None, cause="the gate has closed again")
        return Outcome(again, gate=reading)
    if counted.promoted_to is not None and counted.at < counted.promoted_to:
        if _triggers_ok(happened):
            return forward(counted, actor, now, f"promoted by {counted.actor}", reading)
    elif reading.open:
        return forward(counted, actor, now, "the gate is open", reading)
    if counted.not_met_since is not None and now - counted.not_met_since >= gate.not_met.after and not counted.waived:
        failing = "; ".join(f"{one.name}: {one.text}" for one in reading.conditions if one.failing)
        if gate.not_met.then == "rollback":
            return rolling_back(counted, f"not met for {gate.not_met.after} s: {failing}", actor, now)
        if gate.not_met.then == "pause":
            return Outcome(paused(counted, "not-met", failing, actor, now), gate=reading)
        if not counted.not_met_announced:
            return Outcome(counted.changed(not_met_announced=True, cause=failing), gate=reading)
    if counted.busy_s >= gate.deadline.after:
        text = f"the step took {gate.deadline.after} s"
        if gate.deadline.then == "rollback":
            return rolling_back(counted, text, actor, now)
        return Outcome(paused(counted, "deadline", text, actor, now), gate=reading)
    return Outcome(counted, gate=reading)


def trigger_fired(happened: TriggerFired, record: RolloutRecord, actor: Actor, now: float) -> Outcome | Refusal:
    if record.state == "rolling-back":
        return Outcome(record)
    if record.state == "pending":
        return Outcome(record.changed(cause=happened.text))
    return rolling_back(record, happened.text, actor, now)


def made_safe(happened: MadeSafe, record: RolloutRecord, actor: Actor, now: float) -> Outcome | Refusal:
    if happened.stage not in record.unsafe:
        return Outcome(record)
    left = record.changed(unsafe=tuple(stage for stage in record.unsafe if stage != happened.stage))
    if not left.unsafe:
        rolled = left.changed(state="rolled-back", since=now, reason=None, actor=actor.name, percent=0.0)
        return Outcome(rolled)
    if record.state == "rolling-back":
        return Outcome(left)
    return rolling_back(left, f"stage {happened.stage + 1} was made safe", actor, now)


def flag_changed(happened: FlagChanged, record: RolloutRecord, actor: Actor, now: float) -> Outcome | Refusal:
    if record.state in ("pending", "rolling-back") or happened.stage not in record.unsafe:
        return Outcome(record)
    found = structs.replace(record, percent=happened.percent, version=happened.version)
    return Outcome(paused(found, "conflict", happened.text, actor, now))


def _order_again(record: RolloutRecord, now: float) -> Outcome:
    """An order without an answer is given again: the executor takes each step once."""
    if record.ordered_at is not None and now - record.ordered_at < ORDER_AGAIN_S:
        return Outcome(record)
    again = structs.replace(record, ordered_at=now)
    return Outcome(again, (order_of(again),))


def _triggers_ok(happened: Observation) -> bool:
    """A promotion passes over everything but a trigger that is about to fire."""
    return all(one.verdict == "met" for one in happened.conditions if one.name == "triggers")
