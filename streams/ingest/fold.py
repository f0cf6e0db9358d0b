"""Sums samples by scope and second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int
from detectors.cells import LATENCY_COUNT, LATENCY_US, MEASURE_SCALE
from detectors.histogram import BINS, bins
from streams.decoders.interner import Table
from streams.grouped_sums import LIMIT, by_cell, compress, dense, limited, spread, summed, tallied
from streams.ingest.block import Block
from streams.telemetry.sample import KIND_COUNTS

_KINDS: Final = len(KIND_COUNTS)


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples to be summed, numbered by one table; measure j belongs to sample `measure_row[j]`."""

    second: Int
    offset: Int
    profile: Int
    instance: Int
    kind: Int
    n: Int
    latency_ms: Float
    measure_row: Int
    measure_id: Int
    measure_value: Float


def stacked(parts: Sequence[Rows]) -> Rows:
    """The samples of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    columns = {part.name: [getattr(rows, part.name) for rows in parts] for part in fields(Rows)}
    starts = np.cumsum([0, *(len(rows.second) for rows in parts)])
    columns["measure_row"] = [row + start for row, start in zip(columns["measure_row"], starts, strict=False)]
    return Rows(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def fold(rows: Rows, table: Table) -> tuple[Block, int]:
    """Sum samples; also returns how many requests had a scope for which there is no place.

    Instance numbers of the block are those of the table. Samples are first summed by profile, then those sums by scope,
    so that the cost of a sample does not grow with the number of its scopes.
    """
    starts, scopes, missing = table.expansion()
    profiles, instances = table.profiles, len(table.instances.names)
    seconds, at = dense(rows.second)
    group, of = compress(at * profiles + rows.profile, len(seconds) * profiles)
    profile, second = group % profiles, seconds[group // profiles]

    # Most samples stand for one request each; counting them needs no weights.
    weights = rows.n.astype(np.float64) if rows.n.max() > 1 else None
    overflow = 0
    if missing.any():
        overflow = int(np.bincount(of, weights, len(group))[missing[profile] > 0].sum())
    offset = np.empty(len(group), dtype=np.int64)
    # If an index occurs several times numpy keeps the last value, and offsets ascend.
    offset[of] = rows.offset

    sizes = starts[profile + 1] - starts[profile]
    source, nth = spread(sizes)
    scope = scopes[starts[profile][source] + nth]
    width = int(scopes.max(initial=0)) + 1
    cell_key, cell = np.unique(second[source] * width + scope, return_inverse=True)
    last = np.zeros(len(cell_key), dtype=np.int64)
    np.maximum.at(last, cell, offset[source])
    first = np.cumsum(sizes) - sizes

    def to_cells(groups: Int) -> tuple[Int, Int]:
        """For every scope of every entry's group: the index of the entry, and the cell."""
        row, nth = spread(sizes[groups])
        return row, cell[first[groups][row] + nth]

    timed = ~np.isnan(rows.latency_ms)
    series, of_series = compress(of * instances + rows.instance, len(group) * instances)
    row, at_cell = to_cells(series // instances)
    counts = _counts(rows, weights, timed, of_series, len(series))
    instance_key, instance_counts = summed(at_cell * instances + (series % instances)[row], counts[row])
    instance_cell = instance_key // instances

    hist_key, hist_count = _histogram(rows, weights, timed, of, len(group))
    row, at_cell = to_cells(hist_key // BINS)
    hist_key, hist_count = tallied(at_cell * BINS + (hist_key % BINS)[row], hist_count[row], len(cell_key) * BINS)

    measures = int(rows.measure_id.max(initial=0)) + 1
    measure_key, sums = summed(of[rows.measure_row] * measures + rows.measure_id, _measure_sums(rows))
    row, at_cell = to_cells(measure_key // measures)
    measure_key, sums = summed(at_cell * measures + (measure_key % measures)[row], sums[row])

    return Block(
        scope=cell_key % width,
        second=cell_key // width,
        offset=last,
        counts=by_cell(instance_cell, instance_counts, len(cell_key)),
        hist_cell=hist_key // BINS,
        hist_bin=hist_key % BINS,
        hist_count=hist_count,
        instance_cell=instance_cell,
        instance_id=instance_key % instances,
        instance_counts=instance_counts,
        measure_cell=measure_key // measures,
        measure_id=measure_key % measures,
        measure_sums=sums,
    ), overflow


def _counts(rows: Rows, weights: Float | None, timed: NDArray[np.bool_], series: Int, size: int) -> Int:
    """The counts that each series adds to COUNTS, shape (size, len(COUNTS)); `timed` samples have a latency."""
    by_kind = np.bincount(series * _KINDS + rows.kind, weights, size * _KINDS)
    # Multiply integers: a product of doubles would use BLAS, which may start threads.
    sums = limited(by_kind).reshape(size, _KINDS) @ KIND_COUNTS
    latency_us = np.rint(rows.latency_ms * 1000)
    if weights is not None:
        latency_us *= weights
    if not timed.all():
        series, latency_us = series[timed], latency_us[timed]
        weights = None if weights is None else weights[timed]
    sums[:, LATENCY_COUNT] = limited(np.bincount(series, weights, size))
    sums[:, LATENCY_US] = limited(np.bincount(series, latency_us, size))
    result: Int = np.minimum(sums, LIMIT)
    return result


def _histogram(rows: Rows, weights: Float | None, timed: NDArray[np.bool_], group: Int, groups: int) -> tuple[Int, Int]:
    """Requests by `group * BINS + bin of the latency`, as (key, count)."""
    latency_ms = rows.latency_ms
    if not timed.all():
        group, latency_ms = group[timed], latency_ms[timed]
        weights = None if weights is None else weights[timed]
    return tallied(group * BINS + bins(latency_ms), weights, groups * BINS)


def _measure_sums(rows: Rows) -> Float:
    """Count, positive part and negative part of every measure, in units of 1 / MEASURE_SCALE, shape (measures, 3)."""
    n = rows.n[rows.measure_row].astype(np.float64)
    value = np.rint(rows.measure_value * MEASURE_SCALE) * n
    return np.stack((n, np.maximum(value, 0), np.maximum(-value, 0)), axis=1)
