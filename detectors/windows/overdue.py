"""Requests that have run for longer than a latency limit: counted against it when they cross it, not when they end.

The latency of ended requests is censored: one that takes 60 s is invisible for 60 s. So the first stage keeps, for
each limit L that a trigger compares a quantile with, a signed sum by scope and second: +1 in the second in which the
age of a request crosses L, -1 in the second in which a request ends that was counted so, and whose latency enters the
histogram there. Whatever the window, ended requests plus that sum then hold each request once, where it belongs for L:
at its end if it took at most L, else when it crossed. One sum a limit is what makes this exact for every trigger: a
single sample at the crossing of 1 s could not be moved at 45 s, and a second one would count the request twice.

A mean has none of this: a sample of L, which is all that is known at the crossing, moves no mean across L.

The sum travels as the sum of a measure whose name no sample can have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import midpoints_ms, quantile

LONGEST_MS = 3_600_000.0
"""An older request is given up: no sample has a higher latency, so no limit from here on can be crossed."""

_MIDPOINTS = midpoints_ms()


def limit_of(spec: TriggerSpec) -> float | None:
    """The latency in milliseconds that the trigger compares a quantile with; None where that is no fixed number."""
    if spec.condition.metric != "latency_quantile" or spec.threshold is None:
        return None
    return spec.threshold if spec.threshold < LONGEST_MS else None


def measure_of(limit_ms: float) -> str:
    """The name of the measure that carries the sum of a limit; it does not print, so samples cannot name it."""
    return f"\0overdue {limit_ms!r}"


def above_ms(limit_ms: float) -> float:
    """The least latency in milliseconds that a quantile shows and that is more than the limit, 3.3 % more at most."""
    return float(_MIDPOINTS[_first_above(limit_ms)])


def corrected_quantile(counts: Int, overdue: int, limit_ms: float, q: float) -> tuple[float, int]:
    """The `q` quantile (0..1) in milliseconds and the number of requests behind it, nan where that is 0.

    `counts` (BINS,) are the ended requests of a window, `overdue` is its sum for the limit. Whether the quantile is
    more than the limit is exact. Where it is, the value is a lower bound: of a running request the age is known to be
    above the limit, and of one counted before the window it is not known which of the ended ones it was.
    """
    first = _first_above(limit_ms)
    result: NDArray[np.int64] = counts.astype(np.int64)
    if overdue >= 0:
        result[first] += overdue
    else:
        # From the top: what is taken away is above the limit in any case.
        top = result[first:][::-1]
        left = np.maximum(np.cumsum(top) + overdue, 0)
        top[:] = np.diff(left, prepend=0)
    return float(quantile(result[np.newaxis], q)[0]), int(result.sum())


def _first_above(limit_ms: float) -> int:
    """The first bin that a quantile shows as more than the limit."""
    return int(np.searchsorted(_MIDPOINTS, limit_ms, side="right"))
