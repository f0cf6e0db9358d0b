"""Draw the delays of a simulation as one HTML file that loads nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from agent.offline.simulate import Simulated

_WIDTH, _LEFT, _ROW = 700, 150, 22
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>flipback simulate</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; color: #222; background: #fff }}
svg text {{ font: 12px system-ui, sans-serif; fill: #222 }}
.grid {{ stroke: #dde3e8 }} .span {{ stroke: #1f6f8b; stroke-width: 6 }} .p95 {{ fill: #b3261e }}
</style>
<h1>How late each trigger sees a regression</h1>
<p>Each bar runs from the median delay to the 95th percentile (the dot), on a logarithmic scale. A stage of a rollout
must last at least until its dot.</p>
{charts}
</html>
"""


def page(found: Sequence[Simulated]) -> str:
    """Return the HTML."""
    return _PAGE.format(charts="\n".join(_chart(one) for one in found if one.scenario is not None))


def _chart(one: Simulated) -> str:
    height = len(one.delays) * _ROW + 30
    title = escape(f"{one.flag}/{one.trigger}: {one.condition}")
    parts = [f'<h2>{title}</h2>\n<svg width="{_LEFT + _WIDTH + 80}" height="{height}" role="img" aria-label="{title}">']
    for seconds, label in ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h")):
        x = _x(seconds)
        parts.append(f'<line class="grid" x1="{x:.0f}" x2="{x:.0f}" y1="0" y2="{height - 20}"/>')
        parts.append(f'<text x="{x:.0f}" y="{height - 4}" text-anchor="middle">{label}</text>')
    for row, delay in enumerate(one.delays):
        y = row * _ROW + 12
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{delay.split:.0%} of requests</text>')
        if delay.p50 is None or delay.p95 is None:
            seen = "not seen in 5 % of the runs or more" if delay.p50 is not None else "not seen in half of the runs"
            seen = seen if delay.in_reach else "out of reach of this condition"
            parts.append(f'<text x="{_LEFT + 6}" y="{y + 4}">{seen}</text>')
            continue
        left, right = _x(delay.p50), _x(delay.p95)
        parts.append(f'<line class="span" x1="{left:.1f}" x2="{max(right, left + 1):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="p95" cx="{right:.1f}" cy="{y}" r="5"/>')
        parts.append(f'<text x="{right + 9:.1f}" y="{y + 4}">{delay.p95:.0f} s</text>')
    return "\n".join([*parts, "</svg>"])


def _x(seconds: float) -> float:
    return _LEFT + _WIDTH * math.log10(max(seconds, 1.0)) / math.log10(3600)
