"""Sums by scope and second, as arrays that can be added.

A `Block` is a `detectors.cells.Cells` that is not finished: scopes and measures are numbers of the interner, instances
numbers of the reducer, and a measure's positive and negative values are summed separately. Every sum stops at
`grouped_sums.LIMIT`. The limit gives the same result in any order of addition only because each part never decreases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int
from detectors.cells import Cells, Scope
from streams.grouped_sums import by_cell, summed, tallied


@dataclass(frozen=True, slots=True)
class Block:
    """Shapes and meaning as in `Cells`; `measure_sums` (m, 3) holds count, sum of positives, sum of negatives."""

    scope: Int
    second: Int
    offset: Int
    counts: Int
    hist_cell: Int
    hist_bin: Int
    hist_count: Int
    instance_cell: Int
    instance_id: Int
    instance_counts: Int
    measure_cell: Int
    measure_id: Int
    measure_sums: Int

    def __len__(self) -> int:
        return len(self.second)

    def select(self, rows: NDArray[np.bool_]) -> Block:
        """The cells for which `rows` (cells,) is true, with their histograms, instances and measures."""
        number = np.cumsum(rows) - 1
        hist, instance, measure = rows[self.hist_cell], rows[self.instance_cell], rows[self.measure_cell]
        return Block(
            scope=self.scope[rows],
            second=self.second[rows],
            offset=self.offset[rows],
            counts=self.counts[rows],
            hist_cell=number[self.hist_cell[hist]],
            hist_bin=self.hist_bin[hist],
            hist_count=self.hist_count[hist],
            instance_cell=number[self.instance_cell[instance]],
            instance_id=self.instance_id[instance],
            instance_counts=self.instance_counts[instance],
            measure_cell=number[self.measure_cell[measure]],
            measure_id=self.measure_id[measure],
            measure_sums=self.measure_sums[measure],
        )


def combine(blocks: Sequence[Block]) -> Block:
    """The sum of blocks, in which instance numbers mean the same instances."""
    if len(blocks) == 1:
        return blocks[0]
    width = max(int(block.scope.max(initial=0)) for block in blocks) + 1
    base = np.cumsum([0, *map(len, blocks)])
    key = np.concatenate([block.second * width + block.scope for block in blocks])
    cell_key, cell = np.unique(key, return_inverse=True)
    offset = np.zeros(len(cell_key), dtype=np.int64)
    np.maximum.at(offset, cell, np.concatenate([block.offset for block in blocks]))

    def joined(part: str, number: str, values: str) -> tuple[Int, int, Int]:
        cells = np.concatenate([getattr(block, part) + start for block, start in zip(blocks, base, strict=False)])
        numbers = np.concatenate([getattr(block, number) for block in blocks])
        size = int(numbers.max(initial=0)) + 1
        return cell[cells] * size + numbers, size, np.concatenate([getattr(block, values) for block in blocks])

    hist, hist_size, hist_counts = joined("hist_cell", "hist_bin", "hist_count")
    hist_key, hist_count = tallied(hist, hist_counts, len(cell_key) * hist_size)
    instance, instances, instance_counts = joined("instance_cell", "instance_id", "instance_counts")
    instance_key, instance_counts = summed(instance, instance_counts)
    measure, measures, measure_sums = joined("measure_cell", "measure_id", "measure_sums")
    measure_key, measure_sums = summed(measure, measure_sums)
    return Block(
        scope=cell_key % width,
        second=cell_key // width,
        offset=offset,
        counts=by_cell(instance_key // instances, instance_counts, len(cell_key)),
        hist_cell=hist_key // hist_size,
        hist_bin=hist_key % hist_size,
        hist_count=hist_count,
        instance_cell=instance_key // instances,
        instance_id=instance_key % instances,
        instance_counts=instance_counts,
        measure_cell=measure_key // measures,
        measure_id=measure_key % measures,
        measure_sums=measure_sums,
    )


def renumber(block: Block, instance_id: Int) -> Block:
    """The block with new instance numbers, one for each instance row; rows that become equal are summed."""
    size = int(instance_id.max(initial=0)) + 1
    key, counts = summed(block.instance_cell * size + instance_id, block.instance_counts)
    return replace(block, instance_cell=key // size, instance_id=key % size, instance_counts=counts)


Name = TypeVar("Name", Scope, str)


def finished(block: Block, scopes: Sequence[Scope], instances: Sequence[str], measures: Sequence[str]) -> Cells:
    """The block as cells, sorted by scope and second; `scopes`, `instances`, `measures` give numbers their names."""
    scope_table, scope = _named(block.scope, scopes)
    instance_table, instance_id = _named(block.instance_id, instances)
    measure_table, measure_id = _named(block.measure_id, measures)
    order = np.lexsort((block.second, scope))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    hist = np.lexsort((block.hist_bin, rank[block.hist_cell]))
    instance = np.lexsort((instance_id, rank[block.instance_cell]))
    measure = np.lexsort((measure_id, rank[block.measure_cell]))
    sums = block.measure_sums[measure]
    return Cells(
        scopes=scope_table,
        scope=scope[order],
        second=block.second[order],
        offset=block.offset[order],
        counts=block.counts[order],
        hist_cell=rank[block.hist_cell[hist]],
        hist_bin=block.hist_bin[hist],
        hist_count=block.hist_count[hist],
        instances=instance_table,
        instance_cell=rank[block.instance_cell[instance]],
        instance_id=instance_id[instance],
        instance_counts=block.instance_counts[instance],
        measures=measure_table,
        measure_cell=rank[block.measure_cell[measure]],
        measure_id=measure_id[measure],
        measure_count=sums[:, 0],
        measure_sum=sums[:, 1] - sums[:, 2],
    )


def _named(numbers: Int, names: Sequence[Name]) -> tuple[tuple[Name, ...], Int]:
    """The names that occur, sorted, and for each number the index of its name among them."""
    used, index = np.unique(numbers, return_inverse=True)
    found = [names[number] for number in used.tolist()]
    order = sorted(range(len(found)), key=found.__getitem__)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return tuple(found[place] for place in order), rank[index]
