"""Requests that run for longer than a latency limit: they count against it when they cross it, not when they end.

Latencies of ended requests are censored data: a request that takes 60 s is invisible for 60 s. So the first stage
keeps, for each limit L that a trigger compares a quantile with, a signed sum by scope and second: +1 in the second in
which the age of a request crosses L, and -1 in the second in which such a request ends, where its latency enters the
histogram. In any window, ended requests plus that sum then hold each request once, at the right time for L: at its end
if it took at most L, else when it crossed L. One sum per limit makes this exact for every trigger: a single sample at
the crossing of 1 s could not be moved at 45 s, and a second one would count the request twice.

A mean cannot be corrected like this: at the crossing only L is known, and a sample of L moves no mean across L.

The sum is sent as the sum of a measure, under a name that no sample can have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import midpoints_ms, quantile

LONGEST_MS = 3_600_000.0
"""An older request is dropped: no sample has a higher latency, so it can cross no higher limit."""

_MIDPOINTS = midpoints_ms()


def limit_of(spec: TriggerSpec) -> float | None:
    """Return the latency in milliseconds that the trigger compares a quantile with; None if it is no fixed number."""
    if spec.condition.metric != "latency_quantile" or spec.threshold is None:
        return None
    return spec.threshold if spec.threshold < LONGEST_MS else None


def measure_of(limit_ms: float) -> str:
    """Return the name of the measure that carries the sum of a limit; it is not printable, so samples cannot use it."""
    return f"\0overdue {limit_ms!r}"


def above_ms(limit_ms: float) -> float:
    """Return the least latency in milliseconds above the limit that a quantile can show, at most 3.3 % above it."""
    return float(_MIDPOINTS[_first_above(limit_ms)])


def corrected_quantile(counts: Int, overdue: int, limit_ms: float, q: float) -> tuple[float, int]:
    """Return the `q` quantile (0..1) in milliseconds and the number of requests behind it; nan if that is 0.

    `counts` (BINS,) are the ended requests of a window, `overdue` is its sum for the limit. Whether the quantile is
    above the limit is exact. If it is, the value is a lower bound: the age of a running request is only known to be
    above the limit, and which of the ended requests crossed before the window is not known.
    """
    first = _first_above(limit_ms)
    result: NDArray[np.int64] = counts.astype(np.int64)
    if overdue >= 0:
        result[first] += overdue
    else:
        # Remove from the top: all removed requests are above the limit.
        top = result[first:][::-1]
        left = np.maximum(np.cumsum(top) + overdue, 0)
        top[:] = np.diff(left, prepend=0)
    return float(quantile(result[np.newaxis], q)[0]), int(result.sum())


def _first_above(limit_ms: float) -> int:
    """Return the first bin whose midpoint is above the limit."""
    return int(np.searchsorted(_MIDPOINTS, limit_ms, side="right"))
