"""Additive statistics of scopes in seconds of event time, as columns.

A `Cells` block is what stage 1 sends and stage 2 adds up: one row a (scope, second), plus three sparse sections that
refer to those rows by index (latency histogram, instances, custom measures). All numbers are integers, so that sums
do not depend on the order in which they are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from detectors.arrays import Int

COUNTS = (
    "requests",
    "errors",
    "timeouts",
    "unavailable",
    "cache_hits",
    "cache_lookups",
    "latency_count",
    "latency_us",
    "late",
    "no_outcome",
    "rejected",
)
"""Names of the columns of `Cells.counts`; `latency_us` is a sum of microseconds, the others count requests.

`no_outcome` are among the requests: their samples say neither by status nor by outcome how they ended. `late` and
`rejected` samples are in no other column.
"""
(
    REQUESTS,
    ERRORS,
    TIMEOUTS,
    UNAVAILABLE,
    CACHE_HITS,
    CACHE_LOOKUPS,
    LATENCY_COUNT,
    LATENCY_US,
    LATE,
    NO_OUTCOME,
    REJECTED,
) = range(len(COUNTS))

MEASURE_SCALE = 1_000_000
"""Custom measures are summed in millionths: fixed point adds up the same in any order, floating point does not."""


class Scope(NamedTuple):
    """What statistics are kept for; empty `flag` and `variant` name the whole service."""

    environment: str
    service: str
    flag: str = ""
    variant: str = ""

    def __str__(self) -> str:
        whole = f"{self.environment}/{self.service}"
        return f"{whole}/{self.flag}@{self.variant}" if self.flag else whole


@dataclass(frozen=True, slots=True)
class Cells:
    """Statistics of `n` (scope, second) pairs; every array is int64.

    Shapes: `scope`, `second`, `offset` (n,); `counts` (n, len(COUNTS)). `scope` indexes `scopes`, `second` is s of
    [s, s + 1) in Unix seconds, `offset` the last source offset the cell contains. Sparse sections: `hist_*` (h,),
    `instance_*` (i,) with `instance_counts` (i, len(COUNTS)), `measure_*` (m,); each `*_cell` is a row of the cells.
    A pair (cell, bin), (cell, instance) or (cell, measure) stands once at most.
    """

    scopes: tuple[Scope, ...]
    scope: Int
    second: Int
    offset: Int
    counts: Int
    hist_cell: Int
    hist_bin: Int
    hist_count: Int
    instances: tuple[str, ...]
    instance_cell: Int
    instance_id: Int
    instance_counts: Int
    measures: tuple[str, ...]
    measure_cell: Int
    measure_id: Int
    measure_count: Int
    measure_sum: Int

    def __len__(self) -> int:
        return len(self.second)
