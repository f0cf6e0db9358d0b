"""Draw the packages and their floors for docs/map.md: `python -m tests.support.map_picture` writes docs/map.svg.

The boxes come from `FLOORS` of tests/house/test_floors.py, so a package that is added or moved changes the picture, and
tests/house/test_map.py fails until it is drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.house.test_floors import FLOORS

PICTURE = Path(__file__).parents[2] / "docs" / "map.svg"

PATH = [
    "streams/kafka",
    "streams/decoders",
    "streams/ingest",
    "streams/partials",
    "streams/monitor",
    "detectors/windows",
    "detectors/triggers",
    "agent/decisions",
    "agent/commands",
    "agent/executor",
    "agent/backends",
]
"""The packages that telemetry, and then a command, passes through, in this order: from a record to a written flag."""

TOPS = ("agent", "streams", "detectors")
"""An import goes from a package of this tuple to a later one, or stays inside."""

WIDTH, LEFT, ROW, BOX = 960, 124, 36, 26
CHARACTER = 7.8
"""Pixels of a character of the names, at most: the text fits whatever monospaced font the reader has."""

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" \
aria-labelledby="title description" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif">
  <title id="title">The packages and their floors</title>
  <desc id="description">{description}</desc>
  <style>
    .paper {{ fill: #fbfbfa; stroke: #d8d8d4; }}
    .box   {{ fill: #f1efe9; stroke: #8a8375; }}
    .path  {{ fill: #e7f3e9; stroke: #38804a; stroke-width: 2; }}
    .name  {{ fill: #1d2126; font: 12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; \
text-anchor: middle; }}
    .top   {{ fill: #1d2126; font-size: 15px; font-weight: 600; }}
    .floor {{ fill: #59616a; font-size: 12px; }}
    .step  {{ fill: #38804a; font-size: 11px; font-weight: 600; text-anchor: middle; }}
    .line  {{ stroke: #d8d8d4; }}
    @media (prefers-color-scheme: dark) {{
      .paper {{ fill: #16191d; stroke: #343a41; }}
      .box   {{ fill: #2b2923; stroke: #a89f8c; }}
      .path  {{ fill: #17301e; stroke: #6cbf80; }}
      .name  {{ fill: #f0f2f4; }}
      .top   {{ fill: #f0f2f4; }}
      .floor {{ fill: #9aa4ae; }}
      .step  {{ fill: #6cbf80; }}
      .line  {{ stroke: #343a41; }}
    }}
  </style>
  <rect class="paper" x="0.5" y="0.5" width="{right}" height="{bottom}" rx="8"/>
"""


def picture() -> str:
    """Return the drawing: a row for each floor, the highest first, and a box for each package or module."""
    shapes: list[str] = []
    y = 16
    for number, top in enumerate(TOPS):
        if number:
            shapes.append(f'  <path class="line" d="M16 {y}H{WIDTH - 16}"/>')
            y += 12
        shapes += _floors(top, y)
        y += ROW * len(FLOORS[top]) + 12
    shapes += _legend(y)
    height = y + 36
    description = "; ".join(
        f"{top}, from the highest floor down: {', '.join(' '.join(floor) for floor in reversed(FLOORS[top]))}"
        for top in TOPS
    )
    head = HEAD.format(width=WIDTH, height=height, right=WIDTH - 1, bottom=height - 1, description=description)
    return head + "\n".join(shapes) + "\n</svg>\n"


def _floors(top: str, y: float) -> Iterator[str]:
    yield f'  <text class="top" x="16" y="{y + 18}">{top}</text>'
    for number, floor in reversed(list(enumerate(FLOORS[top]))):
        yield f'  <text class="floor" x="{LEFT}" y="{y + 18}" text-anchor="end">{number}</text>'
        x = LEFT + 14
        for name in floor:
            place = f"{top}/{name}"
            width = round(len(name) * CHARACTER) + 14
            style = "path" if place in PATH else "box"
            yield f'  <rect class="{style}" x="{x}" y="{y}" width="{width}" height="{BOX}" rx="4"/>'
            yield f'  <text class="name" x="{x + width / 2:g}" y="{y + 17}">{name}</text>'
            if place in PATH:
                yield f'  <text class="step" x="{x + width + 12}" y="{y + 17}">{PATH.index(place) + 1}</text>'
                x += 18
            x += width + 8
        y += ROW


def _legend(y: float) -> Iterator[str]:
    yield f'  <path class="line" d="M16 {y}H{WIDTH - 16}"/>'
    yield f'  <rect class="path" x="16" y="{y + 10}" width="26" height="16" rx="3"/>'
    yield (
        f'  <text class="floor" x="50" y="{y + 22}">from a telemetry record to a written flag, in the order of the '
        "numbers</text>"
    )
    yield (
        f'  <text class="floor" x="{WIDTH - 16}" y="{y + 22}" text-anchor="end">left: the floor; imports go down only'
        "</text>"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture())
