"""The value of a metric and the number of samples behind it, from the sums of a window, for many rows at once.

A metric that is one count divided by another is a row of `detectors.conditions.metric_table` and nothing else. Any
other also has a function here, with its entry in `FORMULAS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detectors.arrays import Float, Int
from detectors.cells import LATENCY_COUNT, MEASURE_SCALE, REQUESTS
from detectors.conditions.metric_table import Metric
from detectors.windows.overdue import corrected_quantile, measure_of
from detectors.windows.ratios import PARTS
from detectors.windows.store import WindowStore
from detectors.windows.window import Window

Values = tuple[Float, Int]
"""Value and samples, both (r,)."""


@dataclass(frozen=True, slots=True)
class MetricInput:
    """The arguments of a metric's function: a window, the rows (r,) to read, and values that only some metrics need.

    `quantile` (0..1) is one number for all rows or (r,); `measure` holds the columns of a custom measure's count and
    sum; `overdue` is the column of the sum of the latency limit `limit_ms`, None if there is no limit.
    """

    window: Window
    rows: Int
    quantile: float | Float = 0.5
    measure: tuple[int, int] = (0, 0)
    limit_ms: float = 0.0
    overdue: int | None = None

    def sums(self, column: int) -> Int:
        """Return a column of the window's sums at the rows."""
        sums: Int = self.window.sums[column].take(self.rows)
        return sums


def _ratio(metric: Metric) -> Callable[[MetricInput], Values]:
    """Return the function of a metric that is one count divided by another."""
    ratio = PARTS[metric]

    def value(reading: MetricInput) -> Values:
        part, whole = ratio.of(reading.sums)
        # Subtracted before the division, which then rounds once: 99 of 100 is exactly the number that "99%" parses to.
        return _share(whole - part if ratio.inverse else part, whole, per=ratio.per)

    return value


def _throughput(reading: MetricInput) -> Values:
    """Return requests per second; nan if the scope was never seen or the store has not run for the whole window."""
    # Silence is a throughput of 0 only if the scope had requests before, and if the store ran for the whole window.
    requests = reading.sums(REQUESTS)
    known = reading.window.seen[reading.rows] & reading.window.filled
    return np.where(known, requests / reading.window.seconds, np.nan), requests


def _latency_quantile(reading: MetricInput) -> Values:
    """Return a latency quantile, corrected for overdue requests if there is a limit."""
    value, count = reading.window.quantile(reading.rows, reading.quantile), reading.sums(LATENCY_COUNT)
    if reading.overdue is not None:
        each, overdue = np.broadcast_to(reading.quantile, value.shape), reading.sums(reading.overdue)
        # This loops over few rows: those with requests that hang, or did before the window began.
        for i in np.flatnonzero(overdue).tolist():
            histogram = reading.window.histogram(int(reading.rows[i]))
            value[i], count[i] = corrected_quantile(histogram, int(overdue[i]), reading.limit_ms, float(each[i]))
    return value, count


def _measure(reading: MetricInput) -> Values:
    count, total = reading.measure
    return _share(reading.sums(total), reading.sums(count), per=MEASURE_SCALE)


FORMULAS: dict[Metric, Callable[[MetricInput], Values]] = {
    **{metric: _ratio(metric) for metric in PARTS},
    "throughput": _throughput,
    "latency_quantile": _latency_quantile,
    "measure": _measure,
}
"""Ratios are 0..1, latencies milliseconds, throughput requests/s; nan if there is nothing to divide by."""


def compute(
    store: WindowStore,
    seconds: int,
    metric: Metric,
    rows: Int,
    *,
    quantile: float | Float = 0.5,
    measure: str | None = None,
    limit_ms: float | None = None,
) -> Values:
    """Return a metric's value and samples at the rows (r,) of a window; nan and 0 for a row of -1.

    Samples are what the value is computed from: requests with an outcome for ratios of failures, lookups for the
    cache's ratio, timed requests for latencies, reports of a measure, else requests. With `limit_ms`, a quantile
    includes the requests that have crossed that limit and still run. Raises KeyError for a window, measure or limit
    that the store does not keep.
    """
    kept = np.flatnonzero(rows >= 0)
    columns = store.measure_columns(measure) if measure is not None else (0, 0)
    each = quantile[kept] if isinstance(quantile, np.ndarray) else quantile
    value, samples = np.full(len(rows), np.nan), np.zeros(len(rows), dtype=np.int64)
    overdue = None if limit_ms is None else store.measure_columns(measure_of(limit_ms))[1]
    reading = MetricInput(store.window(seconds), rows[kept], each, columns, limit_ms or 0.0, overdue)
    value[kept], samples[kept] = FORMULAS[metric](reading)
    return value, samples


def _share(part: Int, whole: Int, *, per: int = 1) -> Values:
    value = np.full(len(whole), np.nan)
    np.divide(part, whole * per, out=value, where=whole > 0)
    return value, whole
