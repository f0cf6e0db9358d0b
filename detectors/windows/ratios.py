"""The metrics that are a part of some requests, and of which.

A request whose sample does not say how it ended is a request, but neither a failure nor a success: it is in neither
part of the ratios of failures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from detectors.arrays import Int
from detectors.cells import (
    CACHE_HITS,
    CACHE_LOOKUPS,
    ERRORS,
    LATENCY_COUNT,
    LATENCY_US,
    NO_OUTCOME,
    REQUESTS,
    TIMEOUTS,
    UNAVAILABLE,
)
from detectors.conditions.spec import Metric

N = TypeVar("N", Int, int)


class Ratio(NamedTuple):
    """Columns of `detectors.cells.COUNTS`: the `part`, and the `whole` without those that `unknown` counts.

    `good` says that the part counts what is good; `inverse` that the metric is one minus the ratio.
    """

    part: int
    whole: int
    unknown: int | None = None
    good: bool = False
    inverse: bool = False

    @property
    def columns(self) -> set[int]:
        """The columns that it is made of."""
        return {self.part, self.whole} | ({self.unknown} if self.unknown is not None else set())

    def of(self, column: Callable[[int], N]) -> tuple[N, N]:
        """Return part and whole; `column` gives the counts of a column."""
        whole = column(self.whole)
        return column(self.part), whole if self.unknown is None else whole - column(self.unknown)

    def bad(self, column: Callable[[int], N]) -> tuple[N, N]:
        """Return what is bad, and the whole."""
        part, whole = self.of(column)
        return (whole - part if self.good else part), whole

    def bad_in(self, sums: Int, rows: Int) -> tuple[Int, Int]:
        """Return what is bad, and the whole, (r,), of some rows (r,) of a window's sums (columns, rows)."""
        return self.bad(lambda column: sums[column][rows])


RATIO: Final[Mapping[Metric, Ratio]] = {
    "error_rate": Ratio(ERRORS, REQUESTS, NO_OUTCOME),
    "timeout_rate": Ratio(TIMEOUTS, REQUESTS, NO_OUTCOME),
    "availability": Ratio(UNAVAILABLE, REQUESTS, NO_OUTCOME, inverse=True),
    "cache_hit_rate": Ratio(CACHE_HITS, CACHE_LOOKUPS, good=True),
}
"""Every metric of `detectors.conditions.spec.RATIOS`."""

PARTS: Final[Mapping[Metric, Ratio]] = {**RATIO, "latency_mean": Ratio(LATENCY_US, LATENCY_COUNT)}
"""Every metric that is one count divided by another."""


def value_of(metric: Metric, counts: Int, healthy: int = 0) -> float | None:
    """The metric of some counts (len(COUNTS),), with so many `healthy` requests besides; None where it has none."""
    parts = PARTS.get(metric)
    if parts is None:
        return None
    part, whole = parts.of(counts.tolist().__getitem__)
    if whole + healthy <= 0:
        return None
    share: float = (part + (healthy if parts.good else 0)) / (
        (whole + healthy) * (1000 if parts.part == LATENCY_US else 1)
    )
    return 1 - share if parts.inverse else share
