"""Shows the demo as plain lines, for logs and pipes, without colours or cursor movements."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

from agent.demo.steps import Arm, FlipStep, ObservedSecond, ObservedStep
from agent.demo.story import Activity, Story
from agent.demo.words import opening, percent


class PlainScreen:
    """Writes a line for each event with `write`; each line begins with the seconds since the demo began."""

    def __init__(self, story: Story, write: Callable[[str], None]) -> None:
        self._story = story
        self._write = write
        self._written: set[FlipStep] = set()

    def begun(self, activity: Activity) -> None:
        self._line(
            "wait", activity.text + (" ..." if activity.due is None else f", {activity.due - activity.began:.0f} s ...")
        )

    def ended(self, activity: Activity) -> None:
        self._line("done", f"{activity.text}: {activity.result} ({activity.took:.1f} s)")

    def counted(self, second: ObservedSecond) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(second.time - 1))
        trigger = second.trigger
        verdict = f"{trigger.state} {percent(trigger.value)}"
        self._line("second", f"{clock}  new path {_arm(second.new)}  old path {_arm(second.old)}  trigger {verdict}")

    def marked(self, mark: ObservedStep) -> None:
        # Topics are read concurrently, so a step may be seen before an earlier one. Lines are written in order.
        for step in FlipStep:
            if step not in self._story.timeline.marks:
                break
            self._write_step(step)

    def close(self, lines: Sequence[str], *, success: bool) -> None:
        for line in lines:
            self._write(line)

    def _write_step(self, step: FlipStep) -> None:
        if step not in self._written:
            self._written.add(step)
            mark = self._story.timeline.marks[step]
            self._line("STEP", f"+{mark.since:.2f} s  {mark.step}: {mark.detail}")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        for line in opening(self._story.scene):
            self._write(line)
        yield
        for step in self._story.timeline.marks:
            self._write_step(step)

    def _line(self, kind: str, text: str) -> None:
        self._write(f"{time.time() - self._story.began:6.1f} s  {kind:<6}  {text}")


def _arm(arm: Arm) -> str:
    return f"{arm.requests:>3} req {percent(arm.error_rate):>6} err"
