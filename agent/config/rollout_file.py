"""The rollout file: how a flag goes from 0 to 100 %, stage by stage, and what must hold before each next step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.config.flags import Environment, Flag, Name
from streams.settings import WholeSeconds, whole_seconds

Percent = Annotated[float, Meta(gt=0, le=100, extra={"expected": "a percentage above 0, up to 100"})]


class RolloutStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One percentage of a stage."""

    percent: Annotated[Percent, Meta(description="Share of the requests that get the variant.")]
    at_least: Annotated[WholeSeconds, Meta(description="Least time at this percentage, once it is verified.")]


class Approval(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"other_than": "not"}):
    """A person's consent, asked for last, when every other condition of the gate is met."""

    by: Annotated[Literal["approver"], Meta(description="Least role of the person.")] = "approver"
    other_than: Annotated[
        Literal["requester", "nobody"], Meta(description="requester: not the person who started the rollout.")
    ] = "requester"


class RolloutStage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An environment with a flag, a backend and telemetry of its own."""

    environment: Annotated[Environment, Meta(description="Environment of the flag in the configuration.")]
    steps: Annotated[list[RolloutStep], Meta(description="Percentages, ascending.", min_length=1)]
    flag: Annotated[Name | None, Meta(description="Name of the flag there, if it is another one.")] = None
    checks: Annotated[
        list[Name],
        Meta(description="Tests whose result comes from outside: `flipback rollout check ROLLOUT TEST --passed`."),
    ] = msgspec.field(default_factory=list)
    drill: Annotated[bool, Meta(description="A rollback drill in this stage must have succeeded.")] = False
    approval: Annotated[
        Approval | None, Meta(description="Each step of this stage begins with a person's consent.")
    ] = None

    def flag_name(self, of_rollout: str) -> str:
        """Return the name of its flag, which is the rollout's unless the stage has another."""
        return self.flag if self.flag is not None else of_rollout

    def entries(self, of_rollout: str, flags: Iterable[Flag]) -> list[Flag]:
        """Return those of a configuration's flags that are the stage's flag, one for each service."""
        wanted = self.flag_name(of_rollout), self.environment
        return [flag for flag in flags if (flag.flag, flag.environment) == wanted]


class NotMet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows when a condition of the gate is not met, which is known, for so long."""

    after: Annotated[WholeSeconds, Meta(description="Time for which it must be not met.")] = whole_seconds(600)
    then: Annotated[
        Literal["pause", "rollback", "alert"], Meta(description="pause: a person decides; alert: only publish it.")
    ] = "pause"


class Deadline(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The longest time of a step. It counts only while the rollout could go on without a person."""

    after: Annotated[WholeSeconds, Meta(description="Time since the step was verified.")] = whole_seconds(7200)
    then: Annotated[Literal["pause", "rollback"], Meta(description="What follows.")] = "pause"
    remind: Annotated[WholeSeconds, Meta(description="A rollout that waits for a person is announced this often.")] = (
        whole_seconds(1800)
    )


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"hold": "for"}):
    """What must hold, all at once and for a time, before the next step. Each condition is met, not met or unknown."""

    hold: Annotated[WholeSeconds, Meta(description="Time for which all conditions must be met together.")] = (
        whole_seconds(60)
    )
    min_samples: Annotated[int, Meta(description="Requests with the variant since the step was verified.", ge=1)] = 1000
    triggers: Annotated[Literal["ok"], Meta(description="No trigger of the flag is pending, firing or unknown.")] = "ok"
    drift: Annotated[
        Literal["ok", "ignore"], Meta(description="ok: no drift of the service since the step was verified.")
    ] = "ok"
    unknown: Annotated[
        Literal["wait"], Meta(description="An unknown condition waits, and goes on by itself when it is known.")
    ] = "wait"
    not_met: NotMet = msgspec.field(default_factory=NotMet)
    changed: Annotated[
        Literal["pause"], Meta(description="A person's change of the flag is never overwritten: the rollout pauses.")
    ] = "pause"
    deadline: Deadline = msgspec.field(default_factory=Deadline)


class Rollout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rollout as its file describes it."""

    api_version: Annotated[Literal["flipback/v1"], Meta(description="Version of this format.")] = msgspec.field(
        name="apiVersion"
    )
    rollout: Annotated[Name, Meta(description="Name of the rollout.")]
    flag: Annotated[Name, Meta(description="A flag of the configuration, which has its service, backend and `safe`.")]
    variant: Annotated[str, Meta(description="The variant that is rolled out; all others get `safe`.", min_length=1)]
    stages: Annotated[list[RolloutStage], Meta(description="Environments, in their order.", min_length=1)]
    gate: Gate = msgspec.field(default_factory=Gate)
