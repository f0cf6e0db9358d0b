"""Cells for tests: from short readable rows, or at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from detectors.cells import COUNTS, ERRORS, LATENCY_COUNT, LATENCY_US, REQUESTS, Cells, Scope
from detectors.histogram import BINS

Row = tuple[str, str, int, int, int]
"""Environment, service, second, requests, errors."""


def cells_of(rows: Sequence[Row], *, offset: int = 0) -> Cells:
    """Cells of whole services with requests and errors, from one instance `i-1`, all latencies in bin 100."""
    scopes = sorted({Scope(environment, service) for environment, service, *_ in rows})
    n = len(rows)
    counts = np.zeros((n, len(COUNTS)), dtype=np.int64)
    for i, (_, _, _, requests, errors) in enumerate(rows):
        counts[i, REQUESTS], counts[i, ERRORS] = requests, errors
        counts[i, LATENCY_COUNT], counts[i, LATENCY_US] = requests, 500 * requests
    cell = np.arange(n, dtype=np.int64)
    none = np.zeros(0, dtype=np.int64)
    return Cells(
        scopes=tuple(scopes),
        scope=np.array([scopes.index(Scope(e, s)) for e, s, *_ in rows], dtype=np.int64),
        second=np.array([second for _, _, second, *_ in rows], dtype=np.int64),
        offset=np.full(n, offset, dtype=np.int64),
        counts=counts,
        hist_cell=cell,
        hist_bin=np.full(n, 100, dtype=np.int64),
        hist_count=counts[:, LATENCY_COUNT].copy(),
        instances=("i-1",) if n else (),
        instance_cell=cell,
        instance_id=np.zeros(n, dtype=np.int64),
        instance_counts=counts.copy(),
        measures=(),
        measure_cell=none,
        measure_id=none,
        measure_count=none,
        measure_sum=none,
    )


@st.composite
def random_cells(draw: st.DrawFn, least: int = 0) -> Cells:
    """Random cells of a few scopes and seconds with sparse sections; numbers are small or very large."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    largest = draw(st.sampled_from([3, 300, 70_000, 2**33, 2**50]))
    scopes = tuple(Scope("production", f"s{i}", *(("f", "on") if i % 3 else ("", ""))) for i in range(6))
    pairs = [(scope, second) for scope in range(len(scopes)) for second in range(4)]
    n = draw(st.integers(least, len(pairs)))
    chosen = rng.permutation(len(pairs))[:n]
    scope = np.array([pairs[i][0] for i in chosen], dtype=np.int64)
    table, scope = np.unique(scope, return_inverse=True)
    instances, measures = ("a", "b", "c"), ("score", "price")

    def sparse(width: int) -> tuple[np.ndarray, np.ndarray]:
        every = rng.permutation(n * width)[: rng.integers(0, n * width + 1)] if n else np.zeros(0, dtype=np.int64)
        every = np.sort(every).astype(np.int64)
        return every // width, every % width

    hist_cell, hist_bin = sparse(BINS)
    hist_cell, hist_bin = hist_cell[:200], hist_bin[:200]
    instance_cell, instance_id = sparse(len(instances))
    used_instances, instance_id = np.unique(instance_id, return_inverse=True)
    measure_cell, measure_id = sparse(len(measures))
    used_measures, measure_id = np.unique(measure_id, return_inverse=True)
    return Cells(
        scopes=tuple(scopes[i] for i in table),
        scope=scope.astype(np.int64),
        second=np.array([1_700_000_000 + pairs[i][1] for i in chosen], dtype=np.int64),
        offset=rng.integers(0, largest, n),
        counts=rng.integers(0, largest, (n, len(COUNTS))),
        hist_cell=hist_cell,
        hist_bin=hist_bin,
        hist_count=rng.integers(1, largest, len(hist_cell)),
        instances=tuple(instances[i] for i in used_instances),
        instance_cell=instance_cell,
        instance_id=instance_id.astype(np.int64),
        instance_counts=rng.integers(0, largest, (len(instance_cell), len(COUNTS))),
        measures=tuple(measures[i] for i in used_measures),
        measure_cell=measure_cell,
        measure_id=measure_id.astype(np.int64),
        measure_count=rng.integers(1, largest, len(measure_cell)),
        measure_sum=rng.integers(-largest, largest, len(measure_cell)),
    )
