"""A rollout's record: where it stands, since when, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, structs

from agent.config.rollout_file import Rollout, RolloutStage, RolloutStep

State = Literal[
    "pending", "progressing", "paused", "baking", "rolling-back", "completed", "rolled-back", "cancelled", "superseded"
]
FINAL: frozenset[State] = frozenset({"completed", "rolled-back", "cancelled", "superseded"})
"""States that only a new rollout leaves; `completed` is left for `rolling-back` if a trigger fires."""

NOTHING_COUNTED: Mapping[str, float | None] = {
    "observed_at": None,
    "dwell_s": 0.0,
    "unknown_s": 0.0,
    "busy_s": 0.0,
    "met_since": None,
    "not_met_since": None,
}
"""What a record counts of its step, when the step begins."""

PauseReason = Literal["person", "approval", "not-met", "conflict", "deadline", "pin"]


class Place(Struct, frozen=True, order=True):
    """A step of the plan: indexes of the stage and of its step."""

    stage: int
    step: int


class CheckResult(Struct, frozen=True):
    """The result of a test that ran elsewhere. `at` is Unix seconds."""

    passed: bool
    url: str
    by: str
    at: float


class RolloutRecord(Struct, frozen=True, kw_only=True):
    """Everything that is known of one rollout. All times are Unix seconds.

    `spec` is frozen: a later edit of the file concerns new rollouts only. `revision` rises by one with each change that
    is published, so that a controller that was replaced cannot overwrite its successor. `place` is the step that was
    ordered last, None before the first. `percent` and `version` are what the flag showed when that step was verified;
    `verified_at` is None while the order is under way.

    `ordered_at` is when it was ordered last. `waived` says that a person went on although the gate was not met: the
    same step does not pause for that again.

    `dwell_s` counts the seconds of the step whose evidence was known, `busy_s` those in which nobody was waited for.
    `met_since` and `not_met_since` are the first seconds of the gate's present verdict. Steps up to `promoted_to` pass
    without their gate. `approved` are the stages that a person consented to.
    """

    id: str
    spec: Rollout
    spec_hash: str
    requested_by: str
    revision: int = 0
    state: State = "pending"
    since: float = 0.0
    reason: PauseReason | None = None
    cause: str = ""
    actor: str = ""
    place: Place | None = None
    percent: float | None = None
    version: str | None = None
    ordered_at: float | None = None
    verified_at: float | None = None
    observed_at: float | None = None
    dwell_s: float = 0.0
    unknown_s: float = 0.0
    busy_s: float = 0.0
    met_since: float | None = None
    not_met_since: float | None = None
    not_met_announced: bool = False
    waived: bool = False
    promoted_to: Place | None = None
    approved: tuple[int, ...] = ()
    checks: dict[str, CheckResult] = {}
    unsafe: tuple[int, ...] = ()
    """Stages whose flag may serve the variant; while rolling back, those that are not verified safe yet."""
    pinned_until: float | None = None

    @property
    def at(self) -> Place:
        """The step that was ordered last, the first one before any."""
        return self.place if self.place is not None else Place(0, 0)

    @property
    def stage(self) -> RolloutStage:
        """The stage of that step."""
        return self.spec.stages[self.at.stage]

    @property
    def step(self) -> RolloutStep:
        """That step."""
        return self.stage.steps[self.at.step]

    @property
    def next_place(self) -> Place | None:
        """The step after the one that was ordered last, None after the last of all."""
        if self.place is None:
            return Place(0, 0)
        if self.place.step + 1 < len(self.stage.steps):
            return Place(self.place.stage, self.place.step + 1)
        return Place(self.place.stage + 1, 0) if self.place.stage + 1 < len(self.spec.stages) else None

    def changed(self, **fields: object) -> RolloutRecord:
        """The next revision, with other values."""
        return structs.replace(self, revision=self.revision + 1, **fields)


def last_place(spec: Rollout) -> Place:
    """The step with which a rollout ends."""
    return Place(len(spec.stages) - 1, len(spec.stages[-1].steps) - 1)
