"""The table of metrics, one row each. Everything that depends on a metric's name is a column of it.

A metric that is one count divided by another needs no other code. Any other also has a function in
`detectors.windows.metrics`, which computes it from a window. `Metric` and `DriftMetric` repeat names because type
checkers and the schema of the configuration need them written out; tests hold both to the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

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

if TYPE_CHECKING:
    from detectors.arrays import Int

Metric = Literal[
    "error_rate",
    "timeout_rate",
    "availability",
    "cache_hit_rate",
    "throughput",
    "latency_mean",
    "latency_quantile",
    "measure",
    "absence",
]
DriftMetric = Literal["error_rate", "timeout_rate", "availability", "cache_hit_rate"]
"""The metrics whose row says `drifts`."""

Op = Literal[">", "<"]
Unit = Literal["ratio", "latency", "rate", "plain"]
"""A ratio is 0 to 1 and written in per cent, a latency is in milliseconds, a rate is requests per second."""

N = TypeVar("N", "Int", int)


class Ratio(NamedTuple):
    """`part` divided by (`whole` minus `unknown`); each is a column of `detectors.cells.COUNTS`.

    A request whose sample does not say how it ended is neither a failure nor a success: `unknown` leaves it out.
    `good` says that `part` counts good requests; `inverse` that the metric is one minus the ratio. `per` is how many
    units of `part` are one unit of the metric: microseconds are summed, milliseconds are compared.
    """

    part: int
    whole: int
    unknown: int | None = None
    good: bool = False
    inverse: bool = False
    per: int = 1

    @property
    def columns(self) -> set[int]:
        """The columns that it reads."""
        return {self.part, self.whole} | ({self.unknown} if self.unknown is not None else set())

    def of(self, column: Callable[[int], N]) -> tuple[N, N]:
        """Return part and whole; `column` gives the counts of a column."""
        whole = column(self.whole)
        return column(self.part), whole if self.unknown is None else whole - column(self.unknown)

    def bad(self, column: Callable[[int], N]) -> tuple[N, N]:
        """Return the bad requests and all of them; `column` gives the counts of a column."""
        part, whole = self.of(column)
        return (whole - part if self.good else part), whole

    def bad_in(self, sums: Int, rows: Int) -> tuple[Int, Int]:
        """Return the bad requests and all of them, (r,) each, at the rows (r,) of a window's sums (columns, rows)."""
        return self.bad(lambda column: sums[column][rows])


class MetricRow(NamedTuple):
    """The properties of a metric.

    `ratio` says which counts are divided, None if the metric is not one count divided by another.
    `worse` is the side of a threshold on which the metric is bad. Only a metric that has one is a share of bad requests
    (of a quantile: the requests above the limit), so only such a metric can be proven worse than the control
    (`METRIC@variant > control`), fire early (`fast: true`) and have `min_samples: auto`.
    `fast` says that triggers on it fire early by default, `drifts` that drift of it can be watched.
    `bad_is_rare`: a healthy service has few bad requests. Cache misses are bad, and not rare.
    `wants_samples`: without samples it has no value. A throughput has one: 0.
    `written` is how conditions write it, if not by its name alone.
    `needs` names the fields of a sample, of which the metric needs one. `unreadable` is the field whose unreadable
    values are counted (`detectors.windows.unreadable`), and `must` tells people what a value of that field must be.
    """

    unit: Unit
    ratio: Ratio | None = None
    worse: Op | None = None
    fast: bool = False
    drifts: bool = False
    bad_is_rare: bool = True
    wants_samples: bool = True
    written: str = ""
    needs: str = ""
    unreadable: Literal["latency", "cache", "measure"] | None = None
    must: str = ""

    @property
    def samples(self) -> int | None:
        """The column of `detectors.cells.COUNTS` without which the metric has no value; None if there is no such
        column."""
        if self.ratio is not None:
            return self.ratio.whole
        return LATENCY_COUNT if self.unit == "latency" else None

    @property
    def good_is_high(self) -> bool:
        """Whether the metric is one minus the share of bad requests."""
        return self.unit == "ratio" and self.worse == "<"


_OUTCOME: Final = "status or outcome"
_LATENCY: Final = "latency_ms must be milliseconds from 0 to 3,600,000 (an hour)"

METRIC_TABLE: Final[Mapping[Metric, MetricRow]] = {
    "error_rate": MetricRow(
        "ratio",
        Ratio(ERRORS, REQUESTS, NO_OUTCOME),
        worse=">",
        fast=True,
        drifts=True,
        needs=_OUTCOME,
    ),
    "timeout_rate": MetricRow(
        "ratio",
        Ratio(TIMEOUTS, REQUESTS, NO_OUTCOME),
        worse=">",
        fast=True,
        drifts=True,
        needs=_OUTCOME,
    ),
    "availability": MetricRow(
        "ratio",
        Ratio(UNAVAILABLE, REQUESTS, NO_OUTCOME, inverse=True),
        worse="<",
        fast=True,
        drifts=True,
        needs=_OUTCOME,
    ),
    "cache_hit_rate": MetricRow(
        "ratio",
        Ratio(CACHE_HITS, CACHE_LOOKUPS, good=True),
        worse="<",
        drifts=True,
        bad_is_rare=False,
        needs="cache",
        unreadable="cache",
        must="cache must be hit, miss or bypass",
    ),
    "throughput": MetricRow("rate", wants_samples=False),
    "latency_mean": MetricRow(
        "latency",
        Ratio(LATENCY_US, LATENCY_COUNT, per=1000),
        needs="latency_ms",
        unreadable="latency",
        must=_LATENCY,
    ),
    "latency_quantile": MetricRow(
        "latency",
        worse=">",
        written="latency_pNN",
        needs="latency_ms",
        unreadable="latency",
        must=_LATENCY,
    ),
    "measure": MetricRow("plain", written="measure.NAME", unreadable="measure", must="it must be a number"),
    "absence": MetricRow("plain", wants_samples=False),
}
"""In the order in which error messages list them."""

RATIOS: Final = frozenset(name for name, row in METRIC_TABLE.items() if row.unit == "ratio")
LATENCIES: Final = frozenset(name for name, row in METRIC_TABLE.items() if row.unit == "latency")


def metrics_of(field: str) -> list[Metric]:
    """Return the metrics that need a field of a sample, by its name in the sample."""
    return [name for name, row in METRIC_TABLE.items() if field in row.needs.split(" or ")]
