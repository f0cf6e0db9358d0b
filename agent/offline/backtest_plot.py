"""Draw a backtest as an SVG with a band per trigger, or as one HTML file with that SVG. Both load nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from agent.offline.backtest import Backtest, TriggerReport

_WIDTH, _LEFT, _BAND, _GAP = 1000, 220, 18, 10
_PICTURE = """<svg xmlns="{namespace}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"
 aria-label="When each trigger fired, and when faults were there">
<style>
svg {{ background: #fff }} text {{ font: 12px system-ui, sans-serif; fill: #222 }}
.band {{ fill: #eef2f5 }} .unknown {{ fill: url(#hatch) }} .firing {{ fill: #b3261e }}
.fault {{ fill: #e8a33d; opacity: .35 }} .begin {{ stroke: #9a6200; stroke-width: 1.5 }}
.false {{ fill: none; stroke: #b3261e; stroke-width: 1.5 }}
</style>
<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect width="6" height="6" fill="#eef2f5"/><line x1="0" y1="0" x2="0" y2="6" stroke="#9aa7b0" stroke-width="2"/>
</pattern></defs>
{body}
</svg>
"""
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>flipback backtest</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; color: #222; background: #fff }}
</style>
<h1>Backtest</h1>
<p>{begin} to {end} UTC, {faults} labelled faults. {legend}</p>
{picture}
</html>
"""
LEGEND = """Orange: a fault, its beginning a line. Red: the trigger fires.
Hatched: it could not judge. A ring marks a false alarm."""


def page(found: Backtest) -> str:
    """Return the HTML."""
    return _PAGE.format(
        begin=datetime.fromtimestamp(found.begin, UTC).isoformat(" ", "seconds")[:19],
        end=datetime.fromtimestamp(found.end, UTC).isoformat(" ", "seconds")[:19],
        faults=len(found.faults),
        legend=LEGEND,
        picture=picture(found),
    )


def picture(found: Backtest) -> str:
    """Return the SVG, which works as a file of its own and within a page."""
    parts: list[str] = []
    for row, trigger in enumerate(found.triggers):
        parts += _band(found, trigger, 20 + row * (_BAND + _GAP))
    height = 20 + len(found.triggers) * (_BAND + _GAP) + 30
    for step in range(6):
        at = found.begin + step * (found.end - found.begin) / 5
        clock = datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M")
        parts.append(f'<text x="{_x(found, at):.1f}" y="{height - 8}" text-anchor="middle">{clock}</text>')
    return _PICTURE.format(
        # This is the name of the format; nothing is loaded from there.
        namespace="http://www.w3.org/2000/svg",
        width=_LEFT + _WIDTH + 60,
        height=height,
        body="\n".join(parts),
    )


def _band(found: Backtest, trigger: TriggerReport, y: int) -> list[str]:
    name = escape(f"{trigger.flag}/{trigger.trigger}")
    seen = f"{trigger.detected} of {len(trigger.detections)}, {len(trigger.false_alarms)} false"
    parts = [
        f"<g><title>{name}: {seen}</title>",
        f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{name}</text>',
        f'<rect class="band" x="{_LEFT}" y="{y}" width="{_WIDTH}" height="{_BAND}"/>',
    ]
    parts += [_rect(found, "unknown", span, y + 3, _BAND - 6) for span in trigger.unknown]
    for one in trigger.detections:
        fault, x = one.fault, _x(found, one.fault.at)
        parts.append(_rect(found, "fault", (fault.at, max(fault.until, fault.at + 1)), y, _BAND))
        parts.append(f'<line class="begin" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + _BAND + 3}"/>')
    parts += [_rect(found, "firing", span, y + 5, _BAND - 10) for span in trigger.firing]
    parts += [
        f'<circle class="false" cx="{_x(found, at):.1f}" cy="{y + _BAND / 2}" r="7"/>' for at in trigger.false_alarms
    ]
    return [*parts, "</g>"]


def _rect(found: Backtest, kind: str, span: tuple[float, float], y: int, height: int) -> str:
    x, end = _x(found, span[0]), _x(found, span[1])
    # At least 1.5 pixels wide: a second of a day would be invisible.
    return f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{max(end - x, 1.5):.1f}" height="{height}"/>'


def _x(found: Backtest, at: float) -> float:
    span = max(found.end - found.begin, 1.0)
    return _LEFT + _WIDTH * min(max((at - found.begin) / span, 0.0), 1.0)
