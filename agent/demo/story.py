"""What the demo has observed so far, and the screen that shows it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from agent.commands.command import Evidence
from agent.demo.scene import Scene
from agent.demo.steps import CLEAN_SECONDS, FlipStep, ObservedSecond, ObservedStep, Timeline, recovered


@dataclass(slots=True)
class Activity:
    """An activity that the demo waits for. Times are Unix seconds; `due` is when it ends, if that is known."""

    text: str
    began: float
    due: float | None = None
    ended: float | None = None
    result: str = ""

    @property
    def took(self) -> float:
        return (self.ended or time.time()) - self.began


class Screen(Protocol):
    """Shows the story while it is `running`."""

    def running(self) -> AbstractAsyncContextManager[None]: ...
    def begun(self, activity: Activity) -> None: ...
    def ended(self, activity: Activity) -> None: ...
    def counted(self, second: ObservedSecond) -> None: ...
    def marked(self, mark: ObservedStep) -> None: ...

    def close(self, lines: Sequence[str], *, success: bool) -> None:
        """Show the result, after `running` has ended."""


@dataclass(slots=True)
class Story:
    """Everything that has been observed; the `screen` is notified of each change."""

    scene: Scene
    began: float = field(default_factory=time.time)
    timeline: Timeline = field(default_factory=Timeline)
    seconds: list[ObservedSecond] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)
    evidence: Evidence | None = None
    """The evidence in the command."""
    screen: Screen | None = None

    def begin(self, text: str, due: float | None = None) -> Activity:
        activity = Activity(text, time.time(), due)
        self.activities.append(activity)
        if self.screen is not None:
            self.screen.begun(activity)
        return activity

    def end(self, activity: Activity, result: str) -> None:
        activity.ended, activity.result = time.time(), result
        if self.screen is not None:
            self.screen.ended(activity)

    def mark(self, step: FlipStep, at: float, detail: str) -> None:
        mark = self.timeline.note(step, at, detail)
        if mark is not None and self.screen is not None:
            self.screen.marked(mark)

    def count(self, second: ObservedSecond) -> None:
        self.seconds.append(second)
        if self.screen is not None:
            self.screen.counted(second)
        written = self.timeline.marks.get(FlipStep.WRITTEN)
        if written is None:
            return
        clean = recovered(self.seconds, written.at)
        if clean is not None:
            end, arm = clean
            errors = "no error" if not arm.errors else f"{arm.errors} errors"
            self.mark(
                FlipStep.RECOVERED, end, f"{errors} in {arm.requests:,} requests of {CLEAN_SECONDS} s, all old path"
            )
