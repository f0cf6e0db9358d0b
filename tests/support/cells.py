"""Cells written by hand, for tests of the code that uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from detectors.arrays import Int
from detectors.cells import COUNTS, MEASURE_SCALE, Cells, Scope


@dataclass(frozen=True)
class Cell:
    """One scope in one second: counts by their name, latency bins, counts by instance, (count, sum) by measure."""

    counts: Mapping[str, int] = field(default_factory=dict)
    bins: Mapping[int, int] = field(default_factory=dict)
    instances: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    measures: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def cells(second: int, *rows: tuple[Scope, Cell]) -> Cells:
    """A block of one second; the tables are in the order in which things are first named."""
    scopes = list(dict.fromkeys(scope for scope, _ in rows))
    instances = list(dict.fromkeys(name for _, cell in rows for name in cell.instances))
    measures = list(dict.fromkeys(name for _, cell in rows for name in cell.measures))
    hist = [(i, b, n) for i, (_, cell) in enumerate(rows) for b, n in cell.bins.items()]
    by_instance = [(i, name) for i, (_, cell) in enumerate(rows) for name in cell.instances]
    by_measure = [(i, name) for i, (_, cell) in enumerate(rows) for name in cell.measures]
    return Cells(
        scopes=tuple(scopes),
        scope=_int([scopes.index(scope) for scope, _ in rows]),
        second=_int([second] * len(rows)),
        offset=_int([0] * len(rows)),
        counts=_wide([cell.counts for _, cell in rows]),
        hist_cell=_int([i for i, _, _ in hist]),
        hist_bin=_int([b for _, b, _ in hist]),
        hist_count=_int([n for _, _, n in hist]),
        instances=tuple(instances),
        instance_cell=_int([i for i, _ in by_instance]),
        instance_id=_int([instances.index(name) for _, name in by_instance]),
        instance_counts=_wide([rows[i][1].instances[name] for i, name in by_instance]),
        measures=tuple(measures),
        measure_cell=_int([i for i, _ in by_measure]),
        measure_id=_int([measures.index(name) for _, name in by_measure]),
        measure_count=_int([rows[i][1].measures[name][0] for i, name in by_measure]),
        measure_sum=_int([round(rows[i][1].measures[name][1] * MEASURE_SCALE) for i, name in by_measure]),
    )


def _int(values: list[int]) -> Int:
    return np.array(values, dtype=np.int64)


def _wide(rows: list[Mapping[str, int]]) -> Int:
    values = [[row.get(name, 0) for name in COUNTS] for row in rows]
    return np.array(values, dtype=np.int64).reshape(len(rows), len(COUNTS))
