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
from detectors.windows.ratios import RATIO
from detectors.windows.window import Window


class Bounds(NamedTuple):
    """Between which values (r,) a metric is, whatever the missing samples were; nan where nothing bounds it."""

    low: Float
    high: Float


def bounds(metric: Metric, counts: Int, missing: Int, seconds: int) -> Bounds:
    """The bounds of a metric that is made of `counts` (r, len(COUNTS)) of a window, if `missing` (r,) are added.

    Not of quantiles, for which see `quantile_bounds`, and not of measures, which may have any value.
    """
    if metric in RATIO:
        ratio = RATIO[metric]
        part, whole = ratio.of(lambda column: counts[:, column])
        low, high = _share(part, whole + missing), _share(part + missing, whole + missing)
        # Subtracted before the division, which then rounds once.
        if ratio.inverse:
            low, high = _share(whole - part, whole + missing), _share(whole + missing - part, whole + missing)
        return Bounds(low, high)
    if metric == "throughput":
        # A request that came late has happened, and so may have one that could not be read.
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
    """The bounds, in milliseconds, of a latency quantile `q` (r,) in some rows (r,) of a window.

    `missing` (r,) values are added, and of those in the histogram `left_out` (r,) are not meant; nobody knows which
    they are. So the rank is moved: the quantile is least where all that is left out was slow and all that is missing
    was fast. `overdue` (r,) is the sum of `detectors.windows.overdue`; where it is not 0 the bounds are wider than they
    need.
    """
    timed = window.sums[LATENCY_COUNT][rows]
    kept = np.maximum(timed - left_out, 0)
    late = np.zeros_like(timed) if overdue is None else overdue
    fewest, most = kept + missing + np.minimum(late, 0), kept + missing + np.maximum(late, 0)
    at_low, at_high = rank(q, fewest) - missing, rank(q, most) + np.minimum(left_out, timed)
    low, high = (window.at_rank(rows, np.minimum(at, timed)) for at in (at_low, at_high))
    # Of a row that timed something, it is nan where no histogram is kept.
    told = ~np.isnan(low) | (timed == 0)
    low = np.where((at_low < 1) & told, 0.0, low)
    high = np.where((at_high > timed) & told, LONGEST_MS, high)
    low[fewest < 1] = high[most < 1] = np.nan
    return Bounds(low, high)
