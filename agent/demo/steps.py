"""The steps of a flip as the demo observes them, and when the shop has recovered.

Pure: every time is an argument, in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.demo.scene import FLAG, NEW, OLD, SERVICE, THRESHOLD
from streams.monitor.health import Health, TriggerHealth


class FlipStep(StrEnum):
    """The steps of a flip in their order. A fast reader of the flag file may serve the old path before the executor has
    recorded that it wrote and read back.
    """

    INJECTED = "injected"
    PENDING = "pending"
    FIRING = "firing"
    COMMAND = "command"
    WRITTEN = "written"
    READ_BACK = "read back"
    OLD_PATH = "old path"
    RECOVERED = "recovered"


CLEAN_SECONDS = 5
"""Clean seconds in a row after which the service counts as recovered."""


@dataclass(frozen=True, slots=True)
class ObservedStep:
    """A step that was observed at `at`, `since` seconds after the fault was injected."""

    step: FlipStep
    at: float
    since: float
    detail: str


class Timeline:
    """The first observation of each step; what is older than the fault is ignored."""

    def __init__(self) -> None:
        self.marks: dict[FlipStep, ObservedStep] = {}

    @property
    def injected(self) -> float | None:
        mark = self.marks.get(FlipStep.INJECTED)
        return None if mark is None else mark.at

    def note(self, step: FlipStep, at: float, detail: str = "") -> ObservedStep | None:
        """Record a step and return it; None if it was seen before, or is older than the fault."""
        begin = at if step is FlipStep.INJECTED else self.injected
        if step in self.marks or begin is None or at < begin:
            return None
        mark = self.marks[step] = ObservedStep(step, at, at - begin, detail)
        return mark

    @property
    def next(self) -> FlipStep | None:
        """The first step that has not been seen; None if all have been."""
        return next(iter(self.missing), None)

    @property
    def missing(self) -> list[FlipStep]:
        return [step for step in FlipStep if step not in self.marks]

    def between(self, first: FlipStep, last: FlipStep) -> float | None:
        """Seconds from one step to another; None if one was not seen."""
        if first in self.marks and last in self.marks:
            return self.marks[last].at - self.marks[first].at
        return None


@dataclass(frozen=True, slots=True)
class Arm:
    """The counts of requests of one code path, or of both."""

    requests: int = 0
    errors: int = 0

    @property
    def error_rate(self) -> float | None:
        return self.errors / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class ObservedSecond:
    """Second `[time - 1, time)` of the shop: the counts of the new path, the old path and both, and the verdict."""

    time: int
    new: Arm
    old: Arm
    whole: Arm
    trigger: TriggerHealth


def second(frame: Health) -> ObservedSecond | None:
    """The second of the shop in a health record; None if the record has none."""
    arms: dict[str, Arm] = {}
    requests, errors = frame.counts["requests"], frame.counts["errors"]
    for index, (_, service, flag, variant) in enumerate(frame.scopes):
        if service == SERVICE and flag in ("", FLAG):
            arms[variant if flag else ""] = Arm(requests[index], errors[index])
    trigger = next((trigger for trigger in frame.triggers if trigger.flag == FLAG), None)
    if trigger is None or not arms:
        return None
    return ObservedSecond(frame.time, arms.get(NEW, Arm()), arms.get(OLD, Arm()), arms.get("", Arm()), trigger)


def recovered(seconds: Sequence[ObservedSecond], since: float) -> tuple[int, Arm] | None:
    """The end of the first CLEAN_SECONDS in a row, and the counts of their requests; None while there are too few.

    A second is clean if all its requests took the old path and their error rate is below the threshold. Seconds that
    began before `since` do not count.
    """
    clean, before = 0, None
    for index, seen in enumerate(seconds):
        if seen.time - 1 < since:
            continue
        rate = seen.whole.error_rate
        good = rate is not None and rate < THRESHOLD and seen.old.requests == seen.whole.requests
        # A second without a health record is not clean.
        clean = (clean if before == seen.time - 1 else 0) + 1 if good else 0
        before = seen.time
        if clean == CLEAN_SECONDS:
            run = seconds[index + 1 - CLEAN_SECONDS : index + 1]
            return seen.time, Arm(sum(s.whole.requests for s in run), sum(s.whole.errors for s in run))
    return None


def unfinished(step: FlipStep) -> str:
    """A sentence on the step that was not seen."""
    sentences = {
        FlipStep.INJECTED: "the fault was not injected",
        FlipStep.PENDING: "the trigger did not become pending",
        FlipStep.FIRING: "the trigger did not fire",
        FlipStep.COMMAND: "no command was given",
        FlipStep.WRITTEN: "the flag was not written",
        FlipStep.READ_BACK: "the flag was not read back",
        FlipStep.OLD_PATH: "no user of the new path came to the old one",
        FlipStep.RECOVERED: f"the shop did not have {CLEAN_SECONDS} clean seconds in a row",
    }
    return sentences[step]
