"""What of a window is missing, and what can be said of it all the same.

Missing are samples that came late, that were rejected and, for what asks how requests ended, requests that do not say
it; likewise requests whose latency, cache state or measure could not be read, for what asks for it, and those whose
variant could not be read, for every variant of the flag. Up to 1 % of a window is overlooked. Of more, two things can
still be true:

- The missing are those of some instances, of which it is known who they are, and the others have `min_samples` and
  half of all samples: the others are judged, as if those instances were another service.
- The condition is true even if every missing sample was of a healthy request: then it is true, also where the others
  are well.

Else nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.cells import LATE, LATENCY_COUNT, LATENCY_US, NO_OUTCOME, REJECTED, REQUESTS
from detectors.conditions.metric_table import Metric
from detectors.histogram import rank
from detectors.windows.overdue import LONGEST_MS
from detectors.windows.ratios import RATIO
from detectors.windows.window import Window

MOST_MISSING: Final = 1
"""Percent of a window's samples that may be missing; of more than that, nothing is taken for healthy."""


class Missing(NamedTuple):
    """Samples that are missing in some windows; every array is (r,).

    `late`, `rejected` and `no_outcome` (0 where the metric does not ask for it) are in the counts of the window itself;
    `unattributed` were rejected and may have been anybody's. Of `unread` requests the value of the metric's field could
    not be read, where it could of `read` ones; `variant` are those of other scopes that may have been of this variant.
    `total` are all samples, those that are missing too.
    """

    late: Int
    rejected: Int
    no_outcome: Int
    unattributed: Int
    unread: Int
    read: Int
    variant: Int
    total: Int

    @classmethod
    def nothing(cls, n: int) -> Missing:
        return cls(*np.zeros((len(cls._fields), n), dtype=np.int64))

    @property
    def lost(self) -> Int:
        return self.late + self.rejected + self.no_outcome + self.unattributed + self.unread + self.variant

    @property
    def much(self) -> Bool:
        """Where it is more than may be overlooked, of all or of those that have the metric's field."""
        result: Bool = (100 * self.lost > MOST_MISSING * self.total) | self.much_unread
        return result

    @property
    def much_unread(self) -> Bool:
        result: Bool = 100 * self.unread > MOST_MISSING * (self.unread + self.read)
        return result


def asks_outcome(metric: Metric) -> bool:
    """Does the metric rest on how requests ended?"""
    ratio = RATIO.get(metric)
    return ratio is not None and ratio.unknown is not None


def missing_of(
    column: Callable[[int], Int],
    *,
    outcome: bool,
    unattributed: Int | int = 0,
    unread: Int | int = 0,
    read: Int | int = 0,
    variant: Int | int = 0,
) -> Missing:
    """What is missing in counts of `detectors.cells.COUNTS`, of which `column` returns one; see `asks_outcome`."""
    requests, late, rejected = column(REQUESTS), column(LATE), column(REJECTED)
    unknown = column(NO_OUTCOME) if outcome else np.zeros_like(requests)
    given = (unattributed, unread, read, variant)
    other, bad, good, theirs = (np.broadcast_to(np.asarray(n, dtype=np.int64), requests.shape) for n in given)
    return Missing(late, rejected, unknown, other, bad, good, theirs, requests + late + rejected + other + theirs)


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
