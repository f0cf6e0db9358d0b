"""A merge gives the same watermarks and cells as a plain model of every source; joining and cutting lose nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.cell_operations import by_second, empty, join
from detectors.cells import REQUESTS, Cells
from streams.monitor.merge import Merge
from streams.partials.batch import PartialBatch, PartialHead
from streams.slices import Source
from tests.support.random_cells import cells_of, random_cells

T = 1_700_000_000
PARTITIONS = 2


class Row(NamedTuple):
    service: str
    second: int
    offset: int
    requests: int


class Record(NamedTuple):
    """One record of a source."""

    partition: int
    watermark: float | None
    rows: Sequence[Row]


@dataclass
class Book:
    """The model: by source, service and second, the row of the highest offset that came before the second closed."""

    final: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    marks: list[float | None] = field(default_factory=lambda: [None] * PARTITIONS)
    best: dict[tuple[int, str, int], Row] = field(default_factory=dict)

    def add(self, record: Record) -> float | None:
        """Take in one record, and return the watermark of all sources."""
        partition, mark, rows = record
        for row in rows:
            key = partition, row.service, row.second
            known = self.best.get(key)
            if row.second >= self.final[partition] and (known is None or row.offset > known.offset):
                self.best[key] = row
        own = self.marks[partition]
        if mark is not None and (own is None or mark > own):
            self.marks[partition], self.final[partition] = mark, math.floor(mark)
        return self.mark()

    def mark(self) -> float | None:
        known = [mark for mark in self.marks if mark is not None]
        return min(known) if len(known) == PARTITIONS else None

    def take(self, before: int) -> Counter[tuple[str, int]]:
        found: Counter[tuple[str, int]] = Counter()
        for partition, service, second in list(self.best):
            if second < min(before, self.final[partition]):
                found[service, second] += self.best.pop((partition, service, second)).requests
        return found


rows = st.builds(
    Row,
    service=st.sampled_from(["shop", "cart", "pay"]),
    second=st.one_of(st.integers(T, T + 6), st.sampled_from([0, 2**61])),
    offset=st.integers(0, 3),
    requests=st.integers(1, 99),
)
records = st.builds(
    Record,
    partition=st.integers(0, PARTITIONS - 1),
    watermark=st.one_of(st.none(), st.sampled_from([T + half / 2 for half in range(16)])),
    rows=st.lists(rows, max_size=4),
)


def batch_of(together: Sequence[Record]) -> PartialBatch:
    heads, blocks = [], []
    for number, record in enumerate(together):
        heads.append(PartialHead(Source("requests", record.partition), PARTITIONS, record.watermark, overflow=0))
        blocks += [
            (number, cells_of([("production", row.service, row.second, row.requests, 0)], offset=row.offset))
            for row in record.rows
        ]
    cells = join([cells for _, cells in blocks] or [empty()])
    return PartialBatch(heads, cells, np.array([number for number, _ in blocks], dtype=np.int64))


@given(st.lists(st.tuples(st.lists(records, min_size=1, max_size=4), st.integers(T, T + 8)), max_size=6))
def test_a_merge_gives_what_a_plain_book_of_every_source_gives(batches: list[tuple[list[Record], int]]) -> None:
    merge, book = Merge(["requests"]), Book()
    for together, before in batches:
        rising: list[float] = []
        for record in together:
            stood = book.marks[record.partition]
            mark = book.add(record)
            if mark is not None and book.marks[record.partition] != stood and (not rising or mark > rising[-1]):
                rising.append(mark)
        assert merge.add_all(batch_of(together), 0.0) == rising
        assert merge.watermark == book.mark()
        assert counted(merge.take(before)) == book.take(before)
    assert counted(merge.take(2**62)) == book.take(2**62)


def counted(cells: Cells) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for scope, second, row in zip(cells.scope.tolist(), cells.second.tolist(), cells.counts, strict=True):
        found[cells.scopes[scope].service, second] += int(row[REQUESTS])
    return found


def contents(cells: Cells) -> Counter[object]:
    """The contents of each row of a block, with names in place of numbers."""
    histograms: list[list[object]] = [[] for _ in range(len(cells))]
    by_instance: list[list[object]] = [[] for _ in range(len(cells))]
    by_measure: list[list[object]] = [[] for _ in range(len(cells))]
    for row, bin_, n in zip(cells.hist_cell.tolist(), cells.hist_bin.tolist(), cells.hist_count.tolist(), strict=True):
        histograms[row].append((bin_, n))
    instances = zip(
        cells.instance_cell.tolist(), cells.instance_id.tolist(), cells.instance_counts.tolist(), strict=True
    )
    for row, name, counts in instances:
        by_instance[row].append((cells.instances[name], *counts))
    measures = zip(
        cells.measure_cell.tolist(),
        cells.measure_id.tolist(),
        cells.measure_count.tolist(),
        cells.measure_sum.tolist(),
        strict=True,
    )
    for row, name, n, total in measures:
        by_measure[row].append((cells.measures[name], n, total))
    every = zip(cells.scope.tolist(), cells.second.tolist(), cells.offset.tolist(), cells.counts.tolist(), strict=True)
    return Counter(
        (cells.scopes[scope], second, offset, *counts, *map(str, (histogram, instance, measure)))
        for (scope, second, offset, counts), histogram, instance, measure in zip(
            every, histograms, by_instance, by_measure, strict=True
        )
    )


@given(st.lists(random_cells(), min_size=1, max_size=4))
def test_joined_blocks_say_of_each_row_what_they_said_alone(blocks: list[Cells]) -> None:
    joined = join(blocks)
    assert contents(joined) == sum(map(contents, blocks), Counter())
    for table in (joined.scopes, joined.instances, joined.measures):
        assert len(set(table)) == len(table)


@given(st.lists(random_cells(), min_size=1, max_size=4))
def test_a_block_cut_into_seconds_says_of_each_row_what_it_said_whole(blocks: list[Cells]) -> None:
    whole = join(blocks)
    parts = list(by_second(whole))
    assert [second for second, _ in parts] == sorted(set(whole.second.tolist()))
    assert all(set(part.second.tolist()) == {second} for second, part in parts)
    assert sum((contents(part) for _, part in parts), Counter()) == contents(whole)
