"""What can happen to a rollout: a person's verbs, and what the controller hears of the rest of the system."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from agent.rollouts.record import Place

Role = Literal["viewer", "operator", "approver"]
RANKS: dict[Role, int] = {"viewer": 0, "operator": 1, "approver": 2}


class Person(Struct, frozen=True):
    """Whoever uses a door: the command line, the page, an outside service."""

    name: str
    role: Role


class Program(Struct, frozen=True):
    """A part of flipback."""

    name: Literal["controller", "monitor", "executor"]


Actor = Person | Program
Verdict = Literal["met", "not met", "unknown"]
WaitsFor = Literal["time", "evidence", "backend", "person"]


class Condition(Struct, frozen=True):
    """One condition of a gate. `text` gives its numbers; `eta_s` is about how long it takes until it is met."""

    name: str
    verdict: Verdict
    text: str
    waits_for: WaitsFor = "evidence"
    eta_s: float | None = None

    @property
    def failing(self) -> bool:
        """Whether the evidence speaks against it; time that has to pass and people do not."""
        return self.verdict == "not met" and self.waits_for == "evidence"


# What a person orders.


class Approve(Struct, frozen=True):
    """Consent to the next stage."""

    reason: str


class Promote(Struct, frozen=True):
    """Go on without the gates up to the next step, through the end of this stage, or to the end."""

    through: Literal["step", "stage", "full"]
    reason: str


class Hold(Struct, frozen=True):
    """Stay at this percentage until `Resume`."""

    reason: str


class Resume(Struct, frozen=True):
    """Go on; after a conflict only with `adopt`, from the percentage that the flag has."""

    reason: str
    adopt: bool = False


class Abort(Struct, frozen=True):
    """Stop, and make every flag of the rollout safe."""

    reason: str


class Pin(Struct, frozen=True):
    """A person has set a percentage that stays until `until` (Unix seconds)."""

    percent: float
    until: float
    reason: str


class ReportCheck(Struct, frozen=True):
    """The result of a test that ran elsewhere."""

    test: str
    passed: bool
    url: str


class Supersede(Struct, frozen=True):
    """Another rollout of the flag takes over from here."""

    by_rollout: str


Order = Approve | Promote | Hold | Resume | Abort | Pin | ReportCheck | Supersede


# What the controller hears.


class PreflightDone(Struct, frozen=True):
    """The checks before the start."""

    verdict: Verdict
    text: str


class StepVerified(Struct, frozen=True):
    """The executor has written a step and read it back."""

    place: Place
    percent: float
    version: str


class StepRefused(Struct, frozen=True):
    """The executor did not write a step. `conflict`: the flag was not what the step before left."""

    place: Place
    text: str
    conflict: bool


class Observation(Struct, frozen=True):
    """The gate's conditions in the second that ends now, without dwell, checks and approval."""

    conditions: tuple[Condition, ...]


class TriggerFired(Struct, frozen=True):
    """A rollback trigger of the flag of a stage fired."""

    stage: int
    text: str


class MadeSafe(Struct, frozen=True):
    """The flag of a stage was read back with its safe variant for everybody."""

    stage: int


class FlagChanged(Struct, frozen=True):
    """Somebody else changed the flag of a stage. `percent` is None if it is not a percentage of the variant."""

    stage: int
    percent: float | None
    version: str
    text: str


Report = PreflightDone | StepVerified | StepRefused | Observation | TriggerFired | MadeSafe | FlagChanged
Input = Order | Report
