"""Between which values a metric lies if some samples are missing, whatever those samples were."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int
from detectors.cells import LATENCY_COUNT, LATENCY_US, REQUESTS
from detectors.conditions.metric_table import Metric
from detectors.histogram import rank
from detectors.windows.overdue import LONGEST_MS
from detectors.windows.ratios import RATIO_PARTS
from detectors.windows.window import Window


class Bounds(NamedTuple):
    """The least and the greatest value (r,) of a metric, whatever the missing samples were; nan if it has no bound."""

    low: Float
    high: Float


def bounds(metric: Metric, counts: Int, missing: Int, seconds: int) -> Bounds:
    """Return the bounds of a metric of `counts` (r, len(COUNTS)) of a window if `missing` (r,) samples are added.

    For quantiles see `quantile_bounds`. Measures have no bounds: a value may be any number.
    """
    if metric in RATIO_PARTS:
        ratio = RATIO_PARTS[metric]
        part, whole = ratio.of(lambda column: counts[:, column])
        low, high = _share(part, whole + missing), _share(part + missing, whole + missing)
        # Subtracted before the division, which then rounds once.
        if ratio.inverse:
            low, high = _share(whole - part, whole + missing), _share(whole + missing - part, whole + missing)
        return Bounds(low, high)
    if metric == "throughput":
        # A late request has happened, and a rejected sample may have been a request.
        return Bounds(counts[:, REQUESTS] / seconds, (counts[:, REQUESTS] + missing) / seconds)
    if metric == "latency_mean":
        total, timed = counts[:, LATENCY_US].astype(np.float64), counts[:, LATENCY_COUNT] + missing
        return Bounds(_share(total, timed * 1000), _share(total + missing * LONGEST_MS * 1000, timed * 1000))
    nothing = np.full(len(counts), np.nan)
    return Bounds(nothing, nothing.copy())


def _share(part: NDArray[np.generic], whole: Int) -> Float:
    value = np.full(len(whole), np.nan)
    np.divide(part, whole, out=value, where=whole > 0)
    return value


def quantile_bounds(
    window: Window, rows: Int, q: Float, *, missing: Int, left_out: Int, overdue: Int | None = None
) -> Bounds:
    """Return the bounds, in milliseconds, of a latency quantile `q` (r,) in some rows (r,) of a window.

    `missing` (r,) values are added, and `left_out` (r,) values of the histogram do not count; which ones is not known.
    The rank is therefore moved: the quantile is lowest if all values left out were slow and all missing ones fast.
    `overdue` (r,) is the sum of `detectors.windows.overdue`; if it is not 0, the bounds are wider than necessary.
    """
    timed = window.sums[LATENCY_COUNT][rows]
    kept = np.maximum(timed - left_out, 0)
    late = np.zeros_like(timed) if overdue is None else overdue
    fewest, most = kept + missing + np.minimum(late, 0), kept + missing + np.maximum(late, 0)
    at_low, at_high = rank(q, fewest) - missing, rank(q, most) + np.minimum(left_out, timed)
    low, high = (window.at_rank(rows, np.minimum(at, timed)) for at in (at_low, at_high))
    # For a row with timed requests, nan means that no histogram is kept.
    kept_histogram = ~np.isnan(low) | (timed == 0)
    low = np.where((at_low < 1) & kept_histogram, 0.0, low)
    high = np.where((at_high > timed) & kept_histogram, LONGEST_MS, high)
    low[fewest < 1] = high[most < 1] = np.nan
    return Bounds(low, high)
