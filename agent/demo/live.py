"""Shows the demo on a terminal: the last seconds of traffic above, the steps of the flip below, redrawn continuously.

Colour is never the only sign: a word or a glyph has the same meaning. A terminal of 80 x 24 is enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agent.demo.scene import HOLD
from agent.demo.steps import Arm, FlipStep, ObservedSecond, ObservedStep
from agent.demo.story import Activity, Story
from agent.demo.words import opening, percent

_REDRAW = 0.1
_ROWS = 14
"""Maximum number of seconds of traffic that are shown; fewer on a low terminal."""
_FULL_BAR = 0.25
"""The error rate at which a bar is full."""
_STATES = {"ok": "green", "pending": "yellow", "firing": "bold red"}
_STEPS = {FlipStep.INJECTED: "bold red", FlipStep.OLD_PATH: "bold green", FlipStep.RECOVERED: "bold green"}
_HEADING = "bold bright_black"


class LiveScreen:
    """Draws the whole story ten times a second, and so ignores the notifications of single news."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._console = console
        ascii_only = console.options.ascii_only
        self._done, self._failed, self._to_come, self._block = "+x.#" if ascii_only else "✓✗·█"
        self._spinner = "|/-\\" if ascii_only else "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

    def begun(self, activity: Activity) -> None: ...
    def ended(self, activity: Activity) -> None: ...
    def counted(self, second: ObservedSecond) -> None: ...
    def marked(self, mark: ObservedStep) -> None: ...

    def close(self, lines: Sequence[str], *, success: bool) -> None:
        glyph, style = (self._done, "bold green") if success else (self._failed, "bold red")
        self._console.print()
        self._console.print(Text(f" {glyph} {lines[0]}", style=style))
        for line in lines[1:]:
            self._console.print(Text(f"   {line}"))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Draw during the block and once at its end; the last picture stays on the terminal."""
        with Live(self.draw(), console=self._console, auto_refresh=False) as live:
            drawing = asyncio.create_task(self._redraw(live))
            try:
                yield
            finally:
                drawing.cancel()
                await asyncio.gather(drawing, return_exceptions=True)
                live.update(self.draw(), refresh=True)

    async def _redraw(self, live: Live) -> None:
        while True:
            await asyncio.sleep(_REDRAW)
            live.update(self.draw(), refresh=True)

    def draw(self) -> RenderableType:
        """The whole picture, no higher than the terminal if that has at least 21 lines."""
        width, height = self._console.size
        head, steps = self._head(width), self._steps(width)
        # 4 more lines: the heading of the traffic, two empty lines, and the line with the cursor.
        rows = max(3, min(_ROWS, height - len(head) - len(steps) - 4))
        middle = self._traffic(width, rows) if self._story.seconds else self._start(rows)
        lines = [*head, Text(), *middle, *([Text()] * (rows + 2 - len(middle))), *steps]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)

    def _head(self, width: int) -> list[Text]:
        title = Text.assemble((" flipback demo", "bold"), "  a bad release, turned off by its own telemetry")
        title.append(f"{time.time() - self._story.began:.0f} s".rjust(width - 1 - title.cell_len))
        words = [line.partition(" ") for line in opening(self._story.scene)]
        return [title, *(Text.assemble(" ", (word, _HEADING), " ", rest) for word, _, rest in words)]

    def _start(self, rows: int) -> list[Text]:
        lines = [Text("   START", style=_HEADING)]
        for activity in self._story.activities[-rows:]:
            mark = (self._done, "green") if activity.ended is not None else (self._spin(), "yellow")
            lines.append(Text.assemble(" ", mark, f" {activity.took:5.1f} s  {activity.text}  {activity.result}"))
        return lines

    def _traffic(self, width: int, rows: int) -> list[Text]:
        bar = max(4, min(20, (width - 65) // 2))
        head = f"   {'SECOND':<10}{'NEW PATH (on)':<{18 + bar}}{'OLD PATH (off)':<{18 + bar}}TRIGGER"
        lines = [Text(head, style=_HEADING)]
        for second in self._story.seconds[-rows:]:
            line = Text(time.strftime("   %H:%M:%S  ", time.localtime(second.time - 1)))
            for arm in (second.new, second.old):
                self._arm(line, arm, bar)
            state = second.trigger.state
            line.append(f"{state:<8}", style=_STATES.get(state, "dim"))
            line.append(f"{percent(second.trigger.value):>6}")
            lines.append(line)
        return lines

    def _arm(self, line: Text, arm: Arm, bar: int) -> None:
        rate = arm.error_rate
        line.append(f"{arm.requests:>4}/s ", style="" if arm.requests else "dim")
        line.append(f"{percent(rate):>6} ", style="bold red" if rate else "dim")
        filled = min(bar, round((rate or 0) / _FULL_BAR * bar))
        line.append(self._block * filled, style="red")
        line.append(" " * (bar - filled + 4))

    def _steps(self, width: int) -> list[Text]:
        timeline = self._story.timeline
        lines = [self._heading("   SINCE THE FAULT", width)]
        for step in FlipStep:
            mark = timeline.marks.get(step)
            if mark is not None:
                name = (f"{step:<11}", _STEPS.get(step, "bold"))
                line = Text.assemble(" ", (self._done, "green"), f" {mark.since:6.2f} s  ", name, mark.detail)
            elif timeline.injected is not None and step is timeline.next:
                clock = f" {time.time() - timeline.injected:6.1f} s  "
                name = (f"{step:<11}", "yellow")
                line = Text.assemble(" ", (self._spin(), "yellow"), clock, name, (self._hint(step), "dim"))
            else:
                line = Text(f" {self._to_come} {'':6}    {step:<11}", style="dim")
            lines.append(line)
        return lines

    def _hint(self, step: FlipStep) -> str:
        if step is FlipStep.PENDING:
            return "judged 2 s after a second's end, for late samples"
        pending = [second.time for second in self._story.seconds if second.trigger.state == "pending"]
        return f"has held for {pending[-1] - pending[0]} of {HOLD} s" if pending and step is FlipStep.FIRING else ""

    def _heading(self, text: str, width: int) -> Text:
        """A heading, and at its right the current activity."""
        heading = Text(text, style=_HEADING)
        activity = next((a for a in reversed(self._story.activities) if a.ended is None), None)
        if activity is None:
            return heading
        left = "" if activity.due is None else f", {max(0.0, activity.due - time.time()):.0f} s"
        now = f"{self._spin()} {activity.text}{left}".rjust(width - 1 - heading.cell_len)
        return Text.assemble(heading, (now, "yellow"))

    def _spin(self) -> str:
        return self._spinner[int(time.time() / _REDRAW) % len(self._spinner)]
