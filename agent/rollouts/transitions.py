"""The moves of a rollout: forward, paused, rolling back; what each orders and records."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from agent.rollouts.gate import GateReading
from agent.rollouts.inputs import Actor
from agent.rollouts.record import PauseReason, Place, RolloutRecord


class WriteStep(Struct, frozen=True):
    """An order to the executor: the step at `place`, from the version that the step before left."""

    place: Place
    percent: float
    expected_version: str | None


class MakeSafe(Struct, frozen=True):
    """An order to the executor: the safe variant for everybody, in a stage's environment."""

    stage: int
    cause: str


class Outcome(NamedTuple):
    """What follows: the record, orders to the executor, and the gate as it was read, if it was."""

    record: RolloutRecord
    orders: tuple[WriteStep | MakeSafe, ...] = ()
    gate: GateReading | None = None


class Refusal(NamedTuple):
    """Why nothing follows, in a sentence for a person."""

    text: str


def forward(record: RolloutRecord, actor: Actor, now: float, cause: str, reading: GateReading | None = None) -> Outcome:
    """Order the next step, ask for an approval before it, or complete the rollout."""
    place = record.next_place
    if place is None:
        return Outcome(
            record.changed(state="completed", since=now, reason=None, cause=cause, actor=actor.name), gate=reading
        )
    stage = record.spec.stages[place.stage]
    if stage.approval is not None and place.stage not in record.approved:
        text = f"stage {stage.environment} begins with an approval"
        return Outcome(paused(record, "approval", text, actor, now), gate=reading)
    ordered = record.changed(
        state="progressing",
        since=now if record.state != "progressing" else record.since,
        reason=None,
        cause=cause,
        actor=actor.name,
        place=place,
        ordered_at=now,
        verified_at=None,
        # A stage's flag is another one: what the stage before left says nothing of it.
        version=record.version if record.place is not None and record.place.stage == place.stage else None,
        unsafe=tuple(sorted({*record.unsafe, place.stage})),
    )
    return Outcome(ordered, (order_of(ordered),), reading)


def order_of(record: RolloutRecord) -> WriteStep:
    return WriteStep(record.at, record.step.percent, record.version)


def rolling_back(record: RolloutRecord, cause: str, actor: Actor, now: float) -> Outcome:
    """Make every flag safe that may serve the variant; without one there is nothing to wait for."""
    if not record.unsafe:
        return Outcome(record.changed(state="cancelled", since=now, reason=None, cause=cause, actor=actor.name))
    changed = record.changed(
        state="rolling-back", since=now, reason=None, cause=cause, actor=actor.name, promoted_to=None
    )
    return Outcome(changed, tuple(MakeSafe(stage, cause) for stage in changed.unsafe))


def paused(record: RolloutRecord, reason: PauseReason, cause: str, actor: Actor, now: float) -> RolloutRecord:
    """Wait for a person. A gate that only lacks an approval stays open, and a promotion goes on after it."""
    asked = reason == "approval"
    return record.changed(
        state="paused",
        since=now,
        reason=reason,
        cause=cause,
        actor=actor.name,
        promoted_to=record.promoted_to if asked else None,
        met_since=record.met_since if asked else None,
    )
