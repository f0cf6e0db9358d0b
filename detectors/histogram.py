"""Latency histograms: base-2 exponential buckets of scale 5, in milliseconds.

Bucket i of the family holds (2**(i/32), 2**((i+1)/32)], upper bound included: the boundaries that OpenTelemetry gives
an exponential histogram of scale 5 and Prometheus a native histogram of schema 5, when they measure in milliseconds.
`BINS` of them are kept, from 2**-4 ms (62.5 us) to 2**22 ms (70 min); values outside that range are counted in the end
bins, and 0 ms in bin 0. One bucket is 2.19 % wide, so a quantile is off by 1.09 % at most between those ends.

>>> import numpy as np
>>> bins(np.array([0.0, 1.0, 1.0001, 2.0, 45_000.0]))
array([  0, 127, 128, 159, 622])
>>> counts = np.bincount(bins(np.array([12.0, 15.0, 18.0, 900.0])), minlength=BINS)
>>> quantile(counts[np.newaxis], 0.5).round(1)
array([15.2])

Sources: opentelemetry-specification, metrics/data-model.md, "ExponentialHistogram"; Prometheus native histograms
specification, "Schema"; the midpoint is that of DDSketch (Masson, Rim, Lee, VLDB 2019).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 5
BINS_PER_OCTAVE = 1 << SCALE
LOW_EXPONENT = -4
HIGH_EXPONENT = 22
OCTAVES = HIGH_EXPONENT - LOW_EXPONENT
BINS = OCTAVES * BINS_PER_OCTAVE
"""832 bins; `OCTAVES` groups of `BINS_PER_OCTAVE`, so a bin's octave is `bin // BINS_PER_OCTAVE`."""

PER_MILLION = 1_000_000

_AT_ONCE = 4096
"""Rows whose quantiles are computed at once: the intermediate arrays stay in the cache, and 30,000 rows take 4 ms
instead of 13."""
_FEW_ROWS = 256
"""Below this many rows, one call that sums along the rows is faster than one call a column."""

# 2**(j/32) rounded once from 28 digits: numpy's exp2 and log2 differ in the last place between processors, and a value
# on a boundary would then change its bin from one machine to the next.
_STEPS = np.array([float(Decimal(2) ** (Decimal(j) / BINS_PER_OCTAVE)) for j in range(1, BINS_PER_OCTAVE + 1)])
_OCTAVE_STARTS = 2.0 ** np.arange(LOW_EXPONENT, HIGH_EXPONENT)
_UPPER: NDArray[np.float64] = (_OCTAVE_STARTS[:, np.newaxis] * _STEPS).ravel()
_LOWER = np.concatenate(([_OCTAVE_STARTS[0]], _UPPER[:-1]))

# Positive doubles are ordered as their bit patterns are. A pattern without its lowest 46 bits numbers 64 equal parts of
# every octave; each is narrower than a bin, so it holds at most one boundary, and two table entries per part give the
# bin.
_SHIFT = np.int64(46)
_FIRST = _LOWER[:1].view(np.int64)[0] + 1
_LAST = _UPPER[-1:].view(np.int64)[0]
_PART_STARTS = np.arange(OCTAVES << (52 - 46), dtype=np.int64) << _SHIFT
_UPPER_KEYS = _UPPER.view(np.int64) - _FIRST
_PART_BIN = np.searchsorted(_UPPER_KEYS, _PART_STARTS).astype(np.int64)
_PART_UPPER = _UPPER_KEYS[_PART_BIN]


def bins(latency_ms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin, 0 .. BINS - 1, of every latency in milliseconds (any shape; 3 to 10 ns a value).

    Values are not checked: negative numbers go to bin 0 and NaN to an end bin, so the caller must reject both first.
    """
    values = np.ascontiguousarray(latency_ms, dtype=np.float64)
    keys: NDArray[np.int64] = np.clip(values.view(np.int64), _FIRST, _LAST)
    keys -= _FIRST
    part = keys >> _SHIFT
    above = keys > _PART_UPPER.take(part)
    # Writing into `keys` halves the time of large arrays, most of which goes into fresh pages; numpy writes in place
    # only with mode="clip".
    np.take(_PART_BIN, part, out=keys, mode="clip")
    keys += above
    return keys


def upper_bounds_ms() -> NDArray[np.float64]:
    """Return the inclusive upper bound of every bin in milliseconds, shape (BINS,)."""
    return _UPPER.copy()


def midpoints_ms() -> NDArray[np.float64]:
    """Return the value in milliseconds that stands for every bin, shape (BINS,).

    It is 2ab / (a + b) for the bounds a and b: its relative distance to either bound is then 1.09 %.
    """
    result: NDArray[np.float64] = 2 * _LOWER * _UPPER / (_LOWER + _UPPER)
    return result


_MIDPOINTS = midpoints_ms()


def rank(q: float | NDArray[np.float64], totals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank, from 1, of the `q` quantile among `totals` sorted values: ceil(q n), at least 1.

    `q` is rounded to millionths, because ceil(0.07 * 100) is 8 in floating point. Raises ValueError outside 0..1.
    """
    parts = np.rint(np.multiply(q, PER_MILLION)).astype(np.int64)
    if np.any((parts < 0) | (parts > PER_MILLION)):
        raise ValueError(f"quantile {q} is not between 0 and 1")
    result: NDArray[np.int64] = np.maximum(-(-totals * parts // PER_MILLION), 1)
    return result


def quantile(counts: NDArray[np.integer[Any]], q: float) -> NDArray[np.float64]:
    """Return the `q` quantile (0..1) of every row in milliseconds, nan where a row is empty.

    `counts` has shape (rows, BINS). `quantile_by_octave` is five times cheaper if octave sums are kept.
    """
    octaves = counts.reshape(len(counts), OCTAVES, BINS_PER_OCTAVE).sum(axis=2, dtype=np.int64)
    return quantile_by_octave(counts, octaves, np.arange(len(counts)), q)


def quantile_by_octave(
    counts: NDArray[np.integer[Any]],
    octaves: NDArray[np.integer[Any]],
    rows: NDArray[np.int64],
    q: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the `q` quantile (0..1) of the chosen rows in milliseconds, nan where a row is empty.

    `counts` has shape (n, BINS), `octaves` (n, OCTAVES) holds their sums by octave, `rows` (r,) indexes both, `q` is
    one number for all rows or (r,). Rows of 32-bit counts must hold fewer than 2**32 values.
    """
    each = np.broadcast_to(q, rows.shape)
    result = np.empty(len(rows))
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        result[part] = _quantile_of_some(counts, octaves, rows[part], each[part])
    return result


def first_bin_above(limit_ms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the first bin whose midpoint is above each limit (any shape), BINS if there is none."""
    first: NDArray[np.int64] = np.searchsorted(_MIDPOINTS, limit_ms, side="right").astype(np.int64)
    return first


def count_above(
    counts: NDArray[np.integer[Any]],
    octaves: NDArray[np.integer[Any]],
    rows: NDArray[np.int64],
    first: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return how many values of the chosen rows (r,) are in bin `first` (r,), which is less than BINS, or above it.

    The `q` quantile is above a limit exactly if more than (1 - q) n of n values are in bins above it: both are computed
    from bins. `counts`, `octaves` and `rows` are those of `quantile_by_octave`.

    >>> counts = np.bincount([3, 3, 40, 700], minlength=BINS)[np.newaxis]
    >>> octaves = counts.reshape(1, OCTAVES, BINS_PER_OCTAVE).sum(axis=2)
    >>> count_above(counts, octaves, np.array([0, 0]), np.array([4, 3]))
    array([2, 4])
    """
    octave, step = np.divmod(first, BINS_PER_OCTAVE)
    coarse = _cumulative(octaves[rows], np.int64)
    fine = _cumulative(counts.reshape(-1, BINS_PER_OCTAVE)[rows * OCTAVES + octave], np.int64)
    at = np.arange(len(rows))
    below = np.where(step > 0, fine[step - 1, at], 0)
    result: NDArray[np.int64] = coarse[-1] - coarse[octave, at] + fine[-1] - below
    return result


def _quantile_of_some(
    counts: NDArray[np.integer[Any]], octaves: NDArray[np.integer[Any]], rows: NDArray[np.int64], q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return quantiles as `quantile_by_octave` does, for at most `_AT_ONCE` rows."""
    coarse = _cumulative(octaves[rows], _narrow(octaves))
    return _at_rank(counts, coarse, rows, rank(q, coarse[-1].astype(np.int64)))


def value_at_rank(
    counts: NDArray[np.integer[Any]],
    octaves: NDArray[np.integer[Any]],
    rows: NDArray[np.int64],
    ranks: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the value in milliseconds of rank `ranks` (r,), from 1, in the chosen rows (r,); nan in empty rows.

    `counts`, `octaves` and `rows` are those of `quantile_by_octave`. A rank beyond the last value gives the last value.
    """
    coarse = _cumulative(octaves[rows], _narrow(octaves))
    return _at_rank(counts, coarse, rows, np.minimum(ranks, coarse[-1].astype(np.int64)))


def _at_rank(
    counts: NDArray[np.integer[Any]],
    coarse: NDArray[np.integer[Any]],
    rows: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Find the octave of each wanted rank in the running sums `coarse`, then the bin in that octave. It changes
    `wanted`."""
    octave = _first_reaching(coarse, wanted)
    below = coarse[octave - 1, np.arange(len(rows))]
    wanted -= np.where(octave > 0, below, 0)
    fine = _cumulative(counts.reshape(-1, BINS_PER_OCTAVE)[rows * OCTAVES + octave], coarse.dtype.type)
    step = _first_reaching(fine, wanted)
    return np.where(coarse[-1] > 0, _MIDPOINTS[octave * BINS_PER_OCTAVE + step], np.nan)


def _narrow(counts: NDArray[np.integer[Any]]) -> type[np.integer[Any]]:
    """Return the type of running sums: 32 bits for 32-bit counts, whose rows hold fewer than 2**32 values."""
    return np.uint32 if counts.dtype == np.uint32 else np.int64


def _cumulative(groups: NDArray[np.integer[Any]], dtype: type[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Turn (rows, k) counts into (k, rows) running sums.

    Of many rows numpy adds the long columns 5 times faster than short rows, and 32-bit numbers twice as fast as 64-bit
    ones. Of few rows it is the calls that cost: one for all takes 2 us where one a column takes 19 us.
    """
    if len(groups) < _FEW_ROWS:
        few: NDArray[np.integer[Any]] = np.add.accumulate(groups, axis=1, dtype=dtype).T
        return few
    sums = groups.T.astype(dtype, order="C")
    for i in range(1, len(sums)):
        sums[i] += sums[i - 1]
    return sums


def _first_reaching(sums: NDArray[np.integer[Any]], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every column of (k, rows) running sums the first index that reaches `wanted`, else k - 1."""
    # Both sides must have one type: else numpy converts all sums first.
    same = np.minimum(wanted, np.iinfo(sums.dtype).max).astype(sums.dtype)
    index: NDArray[np.int64] = np.add.reduce(sums < same, axis=0, dtype=np.uint8).astype(np.int64)
    np.minimum(index, len(sums) - 1, out=index)
    return index
