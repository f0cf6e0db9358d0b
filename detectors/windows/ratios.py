"""The metrics that are one count divided by another, from the counts themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from detectors.arrays import Int
from detectors.conditions.metric_table import METRIC_TABLE, Metric, Ratio

PARTS: Final[Mapping[Metric, Ratio]] = {name: row.ratio for name, row in METRIC_TABLE.items() if row.ratio is not None}
"""Every metric that is one count divided by another."""

RATIO_PARTS: Final[Mapping[Metric, Ratio]] = {
    name: ratio for name, ratio in PARTS.items() if METRIC_TABLE[name].unit == "ratio"
}
"""The parts whose value is 0 to 1: every metric of `detectors.conditions.metric_table.RATIOS`."""


def value_of(metric: Metric, counts: Int, healthy: int = 0) -> float | None:
    """Return the metric of some counts (len(COUNTS),) with `healthy` good requests added; None if it has no value."""
    parts = PARTS.get(metric)
    if parts is None:
        return None
    part, whole = parts.of(counts.tolist().__getitem__)
    if whole + healthy <= 0:
        return None
    share: float = (part + (healthy if parts.good else 0)) / ((whole + healthy) * parts.per)
    return 1 - share if parts.inverse else share
