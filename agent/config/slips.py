"""Limits that probably mean something else than they say: a fraction with a percent sign behind it."""

from __future__ import annotations

import re

from agent.config.flags import When
from detectors.conditions.metric_table import RATIOS
from detectors.conditions.spec import TriggerSpec

_PERCENT = re.compile(r"([<>])\s*((?:\d*\.)?\d+)\s*%")

_LEAST_BAD = 0.1
"""Per cent of bad requests. Below, what looks like 0.02 % is oftener 2 % written as a fraction than a limit: it takes
tens of thousands of samples."""

_LEAST_GOOD = 1.0
"""Per cent of good requests: a service of which less is good does not serve at all."""


def slip(when: When, spec: TriggerSpec, rate: float | None) -> str | None:
    """What a limit was probably meant to be; None where it may well be meant as it is.

    `rate` is the requests a second of the scope, where it is known: with enough of them a tiny limit can be judged, and
    is taken for meant. Written as a fraction, such as 0.0002, no limit is doubted.
    """
    found = _PERCENT.search(when)
    if found is None or spec.condition.metric not in RATIOS or spec.condition.relative is not None:
        return None
    op, written = found[1], found[2]
    value = float(written)
    if not 0 < value < (_LEAST_BAD if op == ">" else _LEAST_GOOD):
        return None
    if op == ">" and rate is not None and spec.min_samples <= rate * spec.windows[-1]:
        return None
    return f"{written}% is {value / 100:.6g}: did you mean {100 * value:.6g}%? To keep it, write {value / 100:.6g}"
