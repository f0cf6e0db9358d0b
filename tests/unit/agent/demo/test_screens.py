"""The demo's screens: in order on a pipe, within 80 x 24 on a terminal, and complete without colours."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from agent.demo.live import LiveScreen
from agent.demo.plain import PlainScreen
from agent.demo.scene import FLAG, SERVICE, Scene
from agent.demo.steps import Arm, FlipStep, ObservedSecond
from agent.demo.story import Story
from agent.demo.words import opening
from streams.monitor.health import TriggerHealth


def scene(tmp_path: Path, brokers: str = "127.0.0.1:20123", *, embedded: bool = True) -> Scene:
    return Scene(tmp_path, brokers, embedded=embedded, prefix="flipback-demo-x", health_port=1, session_timeout=2.0)


def full_story(story: Story, seconds: int = 30) -> None:
    """Fill the story with everything that a screen can show, each text at its maximum length."""
    story.end(story.begin("embedded broker (Tansu)"), "answers on 127.0.0.1:20123")
    story.begin("flipback's first verdict on the shop")
    start = int(time.time()) - seconds
    for index in range(seconds):
        trigger = TriggerHealth(FLAG, "errors", f"production/{SERVICE}", "pending", 0.1031, 0.02, 2000, "")
        story.count(ObservedSecond(start + index, Arm(1000, 250), Arm(1000, 0), Arm(2000, 250), trigger))
    for index, step in enumerate(FlipStep):
        story.mark(step, start + 20.04 * index, "user-499 had the new path and now got the old one")


class Lines(list[str]):
    def steps(self) -> list[str]:
        return [line.split("STEP")[1].split(":")[0].split(" s  ")[1] for line in self if "STEP" in line]


async def test_plain_lines_tell_the_steps_in_order_however_they_come(tmp_path: Path) -> None:
    story, lines = Story(scene(tmp_path)), Lines()
    story.screen = PlainScreen(story, lines.append)
    async with story.screen.running():
        at = time.time()
        story.mark(FlipStep.INJECTED, at, "")
        story.mark(FlipStep.OLD_PATH, at + 3.2, "")
        story.mark(FlipStep.COMMAND, at + 3.1, "")
        assert lines.steps() == ["injected"]
        story.mark(FlipStep.PENDING, at + 2.0, "")
        story.mark(FlipStep.FIRING, at + 3.0, "")
        assert lines.steps() == ["injected", "pending", "firing", "command"]
    # At the end the steps after one that never came are shown too.
    assert lines.steps() == ["injected", "pending", "firing", "command", "old path"]
    assert any(re.search(r"STEP    \+2\.00 s  pending: ", line) for line in lines)


def test_plain_lines_fit_any_terminal_in_any_encoding(tmp_path: Path) -> None:
    story, lines = Story(scene(tmp_path)), Lines()
    story.screen = PlainScreen(story, lines.append)
    full_story(story)
    assert all(line.isascii() for line in lines)
    assert all("\x1b" not in line for line in lines)


@pytest.mark.parametrize("phase", ["nothing yet", "starting", "all"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
def test_the_picture_fits_the_terminal(tmp_path: Path, phase: str, width: int, height: int) -> None:
    story = Story(scene(tmp_path))
    if phase == "starting":
        for name in ("embedded broker (Tansu)", "flipback run, all roles", "shop-1", "shop-2"):
            story.begin(name)
    if phase == "all":
        full_story(story)
    lines = drawn(story, width, height)
    # The cursor needs one line: if the terminal scrolled, the picture could not be redrawn in place.
    assert len(lines) <= height - 1
    assert all(len(line) <= width for line in lines)
    assert not any("…" in line for line in lines)


def test_the_picture_needs_no_colour(tmp_path: Path) -> None:
    story = Story(scene(tmp_path))
    full_story(story)
    text = "\n".join(drawn(story, 80, 24))
    assert "\x1b" not in text
    assert "pending  10.3%" in text
    assert "25.0%" in text
    assert re.search(r"✓ +20\.04 s  pending", text)
    assert re.search(r"✓ +140\.28 s  recovered", text)


def test_a_step_that_is_waited_for_says_how_far_it_is(tmp_path: Path) -> None:
    story = Story(scene(tmp_path))
    full_story(story, seconds=8)
    del story.timeline.marks[FlipStep.FIRING]
    assert any("firing" in line and "has held for 7 of 10 s" in line for line in drawn(story, 80, 24))


def test_a_terminal_without_unicode_is_drawn_in_ascii(tmp_path: Path) -> None:
    story = Story(scene(tmp_path))
    full_story(story)
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=output, width=80, height=24, force_terminal=True)
    console.print(LiveScreen(story, console).draw())
    output.flush()


def test_what_will_be_shown_is_said_in_lines_of_a_terminal(tmp_path: Path) -> None:
    lines = list(opening(scene(tmp_path, "127.0.0.1:19092", embedded=False)))
    assert "127.0.0.1:19092" in lines[0]
    assert "shortened for the demo, from 2m to 10 s" in lines[-1]
    assert max(map(len, [*lines, *opening(scene(tmp_path))])) <= 79


def drawn(story: Story, width: int, height: int) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=width, height=height, color_system=None, legacy_windows=False)
    console.print(LiveScreen(story, console).draw())
    return [line.rstrip() for line in output.getvalue().splitlines()]
