"""Detects limits that are probably a mistake: a fraction with a percent sign, such as 0.02% for 2 %."""

from __future__ import annotations

import re

from agent.config.flags import When
from detectors.conditions.metric_table import RATIOS
from detectors.conditions.spec import TriggerSpec

_PERCENT = re.compile(r"([<>])\s*((?:\d*\.)?\d+)\s*%")

_LEAST_BAD = 0.1
"""Percentage of bad requests. A lower limit is more often a fraction: 0.02 % needs tens of thousands of samples, and
2 % is a usual limit."""

_LEAST_GOOD = 1.0
"""Percentage of good requests. A service with a lower share of good requests does not work at all."""


def slip(when: When, spec: TriggerSpec, rate: float | None) -> str | None:
    """Return the question whether a limit was meant otherwise; None if it is plausible as it is.

    `rate` is the requests per second of the scope, None if unknown: if it is high enough to judge a tiny limit, the
    limit is plausible. A limit that is written as a fraction, such as 0.0002, is always plausible.
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
