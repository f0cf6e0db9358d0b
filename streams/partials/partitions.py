"""Which cells go to which partials partition, and how many into one record."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from detectors.cell_operations import select
from detectors.cells import Cells

MAX_CELLS = 4000
"""Cells a record holds at most; at about 100 bytes per busy cell it stays below Kafka's default limit of 1 MB."""


def partition_of(environment: str, service: str, partitions: int) -> int:
    """The partials partition in which a service, its flags and all their variants meet; stable across versions."""
    return zlib.crc32(f"{environment}\0{service}".encode()) % partitions


def split(cells: Cells, partitions: int) -> Iterator[tuple[int, Cells]]:
    """Yield each partials partition that has cells with those cells, in parts of at most `MAX_CELLS`."""
    if not len(cells):
        return
    target = np.array([partition_of(s.environment, s.service, partitions) for s in cells.scopes], dtype=np.int64)
    of_row = target[cells.scope]
    for partition in np.unique(of_row).tolist():
        rows = np.flatnonzero(of_row == partition)
        for start in range(0, len(rows), MAX_CELLS):
            yield partition, select(cells, rows[start : start + MAX_CELLS])
