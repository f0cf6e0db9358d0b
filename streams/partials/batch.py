"""Partials that were read together: their heads, and all their cells as one block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detectors.arrays import Int
from detectors.cell_operations import select
from detectors.cells import Cells
from streams.partials.record import Partial
from streams.slices import Source


class PartialHead(NamedTuple):
    """A partial without its cells; the fields are those of `Partial`."""

    source: Source
    partitions: int
    watermark: float | None
    overflow: int
    received: int = 0
    rejected: int = 0
    caught_up: bool = True

    @classmethod
    def of(cls, partial: Partial) -> PartialHead:
        counts = partial.overflow, partial.received, partial.rejected, partial.caught_up
        return cls(partial.source, partial.partitions, partial.watermark, *counts)


@dataclass(frozen=True, slots=True)
class PartialBatch:
    """Partials in the order of the log with their cells as one block; row i of it came in partial `record[i]`."""

    heads: Sequence[PartialHead]
    cells: Cells
    record: Int

    def part(self, start: int, end: int) -> PartialBatch:
        """Partials `start` to before `end`, and their cells."""
        if start == 0 and end == len(self.heads):
            return self
        rows = np.arange(*np.searchsorted(self.record, (start, end)))
        return PartialBatch(self.heads[start:end], select(self.cells, rows), self.record[rows] - start)
