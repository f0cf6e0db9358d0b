"""How long a rollout takes at least, by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from agent.config.model import Config
from agent.config.rollout_file import Rollout, RolloutStage, RolloutStep
from detectors.conditions.durations import format_seconds


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage and the least seconds of each of its steps."""

    stage: RolloutStage
    steps_s: tuple[int, ...]

    @property
    def shortest(self) -> int:
        """Seconds of all its steps."""
        return sum(self.steps_s)

    def as_json(self) -> dict[str, Any]:
        """Return the stage as an item of `flipback config check --json`."""
        steps = zip(self.stage.steps, self.steps_s, strict=True)
        return {
            "environment": self.stage.environment,
            "steps": [{"percent": step.percent, "shortest_s": seconds} for step, seconds in steps],
            "shortest_s": self.shortest,
            "checks": self.stage.checks,
            "drill": self.stage.drill,
            "approval": self.stage.approval is not None,
        }


def plan(rollout: Rollout, rate: float | None) -> list[StagePlan]:
    """Plan all stages. With `rate`, requests per second of the service, a step also waits for its samples."""
    return [StagePlan(stage, tuple(_shortest(step, rollout, rate) for step in stage.steps)) for stage in rollout.stages]


def shortest(rollout: Rollout, rate: float | None) -> int:
    """Seconds that the whole rollout takes at least, with gates that open at once."""
    return sum(stage.shortest for stage in plan(rollout, rate))


def notes(rollout: Rollout, config: Config, rate: float | None) -> Iterator[str]:
    """Yield what is no fault of the file, and yet hardly meant."""
    gate = rollout.gate
    for one in plan(rollout, rate):
        stage = one.stage
        slow = [
            f"{step.percent:g} %"
            for step, seconds in zip(stage.steps, one.steps_s, strict=True)
            if seconds >= gate.deadline.after
        ]
        if slow:
            many = (
                f"{gate.min_samples:,} requests take longer than the deadline of {format_seconds(gate.deadline.after)}"
            )
            yield f"{stage.environment}: at {', '.join(slow)}, {many}"
        flags = stage.entries(rollout.flag, config.flags)
        triggers = [trigger.when.condition for flag in flags for trigger in flag.triggers]
        judged = sorted({condition.variant for condition in triggers if condition.variant is not None})
        if rollout.variant not in judged and all(condition.variant is not None for condition in triggers):
            yield f"{stage.environment}: no trigger judges {rollout.variant!r}; judged are {', '.join(judged)}"
        elif judged and rollout.variant not in judged:
            yield f"{stage.environment}: triggers judge the variants {', '.join(judged)}, not {rollout.variant!r}"


def plan_lines(rollout: Rollout, config: Config, rate: float | None) -> Iterator[str]:
    """Yield the plan as text: a line for each stage, the gate, the whole, and what is hardly meant."""
    for one in plan(rollout, rate):
        stage = one.stage
        asks = [
            *([f"checks {', '.join(stage.checks)}"] if stage.checks else []),
            *(["a rollback drill"] if stage.drill else []),
            *(["an approval before it"] if stage.approval is not None else []),
        ]
        steps = " -> ".join(f"{step.percent:g} %" for step in stage.steps)
        also = f"; asks for {', '.join(asks)}" if asks else ""
        yield f"  {stage.environment}: {steps}, {format_seconds(one.shortest)} at least{also}"
    gate, hold = rollout.gate, format_seconds(rollout.gate.hold)
    yield f"  gate: everything met together for {hold}, {gate.min_samples:,} requests of {rollout.variant!r} a step"
    known = "" if rate is None else f" at {rate:g}/s"
    yield f"  whole rollout: {format_seconds(shortest(rollout, rate))} at least{known}, without the time of people"
    for text in notes(rollout, config, rate):
        yield f"  note: {text}"


def _shortest(step: RolloutStep, rollout: Rollout, rate: float | None) -> int:
    samples = 0 if rate is None else ceil(rollout.gate.min_samples / (rate * step.percent / 100))
    return max(int(step.at_least), int(rollout.gate.hold), samples)
