"""The story on a terminal: the last seconds of traffic above, the way of the flip below, redrawn as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agent.demo.story import Activity, Story
from agent.demo.timeline import Arm, Mark, Second, Step
from agent.demo.words import opening, percent

_REDRAW = 0.1
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ROWS = 14
"""Seconds of traffic that are shown at most; fewer on a low terminal."""
_FULL_BAR = 0.25
"""Error rate of a full bar."""
_STATES = {"ok": "green", "pending": "yellow", "firing": "bold red"}


class LiveScreen:
    """Draws the story ten times a second; news need no more than that."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._console = console
        self._plain = console.options.ascii_only

    def begun(self, activity: Activity) -> None: ...
    def ended(self, activity: Activity) -> None: ...
    def counted(self, second: Second) -> None: ...
    def marked(self, mark: Mark) -> None: ...

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Draw meanwhile, and a last time at the end; what was drawn stays on the terminal."""
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
        """The whole picture, never higher than the terminal."""
        width, height = self._console.size
        head, steps = self._head(width), self._steps(width)
        room = max(3, min(_ROWS, height - 1 - len(head) - len(steps) - 5))
        middle = self._traffic(width, room) if self._story.seconds else self._start(width, room)
        lines = [*head, Text(), *middle, Text(), *steps, self._now(width)]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
            line.no_wrap = True
        return Group(*lines)

    def _head(self, width: int) -> list[Text]:
        elapsed = f"{time.time() - self._story.began:.0f} s"
        title = Text.assemble(("flipback demo", "bold"), "  a bad release, turned off by its own telemetry")
        title.append(elapsed.rjust(max(0, width - title.cell_len)))
        lines = [title]
        for line in opening(self._story.scene):
            word, _, rest = line.partition(" ")
            lines.append(Text.assemble((word, "bold"), " ", rest))
        return lines

    def _start(self, width: int, rows: int) -> list[Text]:
        lines = [Text("START", style="dim bold")]
        for activity in self._story.activities[-rows:]:
            glyph = self._spin() if activity.ended is None else self._glyph("✓", "+")
            style = "" if activity.ended is None else "green"
            text = f"{activity.text}  {activity.result}" if activity.ended else activity.text
            lines.append(Text.assemble(" ", (glyph, style), f"  {activity.took:5.1f} s  {text}"))
        return lines + [Text()] * (rows + 1 - len(lines))

    def _traffic(self, width: int, rows: int) -> list[Text]:
        bar = max(4, min(20, (width - 62) // 2))
        head = f" {'SECOND':<10}{'NEW PATH (on)':<{18 + bar}}{'OLD PATH (off)':<{18 + bar}}TRIGGER"
        lines = [Text(head, style="dim bold")]
        for second in self._story.seconds[-rows:]:
            clock = time.strftime("%H:%M:%S", time.localtime(second.time - 1))
            line = Text(f" {clock}  ")
            self._arm(line, second.new, bar)
            self._arm(line, second.old, bar)
            state = second.trigger.state
            line.append(f"{state:<8}", style=_STATES.get(state, "dim"))
            line.append(f"{percent(second.trigger.value):>6}")
            lines.append(line)
        return lines + [Text()] * (rows + 1 - len(lines))

    def _arm(self, line: Text, arm: Arm, bar: int) -> None:
        rate = arm.error_rate
        line.append(f"{arm.requests:>4}/s ", style="" if arm.requests else "dim")
        line.append(f"{percent(rate):>6} ", style="bold red" if rate else "dim")
        filled = min(bar, round((rate or 0) / _FULL_BAR * bar))
        line.append(self._glyph("█", "#") * filled, style="red")
        line.append(" " * (bar - filled + 4))

    def _steps(self, width: int) -> list[Text]:
        timeline = self._story.timeline
        lines = [Text(f" {'SINCE THE FAULT':<17}STEP", style="dim bold")]
        for step in Step:
            mark = timeline.marks.get(step)
            if mark is not None:
                style = "bold green" if step in (Step.OLD_PATH, Step.RECOVERED) else "bold"
                if step is Step.INJECTED:
                    style = "bold red"
                line = Text.assemble(
                    " ",
                    (self._glyph("✓", "+"), "green"),
                    f" {mark.since:9.2f} s    ",
                    (f"{step:<11}", style),
                    mark.detail,
                )
            elif step is timeline.next and timeline.injected is not None:
                since = time.time() - timeline.injected
                line = Text.assemble(" ", (self._spin(), "yellow"), f" {since:9.1f} s    ", (f"{step:<11}", "yellow"))
                line.append(self._hint(step), style="dim")
            else:
                line = Text(f" {self._glyph('·', '.')} {'':9}      {step:<11}", style="dim")
            lines.append(line)
        return lines

    def _hint(self, step: Step) -> str:
        trigger = self._story.seconds[-1].trigger if self._story.seconds else None
        return trigger.reason if trigger is not None and step is Step.FIRING else "..."

    def _now(self, width: int) -> Text:
        activity = next((a for a in reversed(self._story.activities) if a.ended is None), None)
        if activity is None:
            return Text()
        left = "" if activity.due is None else f", {max(0.0, activity.due - time.time()):.0f} s"
        return Text.assemble(" ", (self._spin(), "yellow"), f" {activity.text}{left}")

    def _spin(self) -> str:
        turn = int(time.time() / _REDRAW)
        return "|/-\\"[turn % 4] if self._plain else _SPINNER[turn % len(_SPINNER)]

    def _glyph(self, symbol: str, ascii_: str) -> str:
        return ascii_ if self._plain else symbol
