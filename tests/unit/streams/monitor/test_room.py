"""Cells that wait for a source that holds up all others are bounded: no more of the oldest seconds go than must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cell_operations import empty, nbytes
from detectors.cells import COUNTS, Cells
from streams.monitor.merge import Merge
from streams.monitor.room import kept_from
from tests.support.random_cells import cells_of
from tests.unit.streams.monitor.test_merge import record, requests, taken

T = 1_700_000_000


def one_row_in(*seconds: int) -> Cells:
    return cells_of([("production", "shop", second, 5, 1) for second in seconds])


ROW = nbytes(one_row_in(T))
"""Bytes of one of these rows, which is a quarter of `4 * ROW`."""


def test_a_row_is_as_large_as_its_numbers() -> None:
    # Scope, second and offset; a bin of the histogram, an instance; the counts of both: eight bytes each.
    assert nbytes(one_row_in(T)) == 8 * (3 + len(COUNTS) + 3 + 2 + len(COUNTS))
    assert nbytes(one_row_in(T, T + 1, T + 1)) == 3 * ROW


def test_nothing_goes_while_a_quarter_of_the_room_is_free() -> None:
    assert kept_from([one_row_in(T, T + 1, T + 2)], 4 * ROW) is None
    assert kept_from([empty(), empty()], 4 * ROW) is None


def test_the_oldest_second_goes_when_less_than_a_quarter_is_free() -> None:
    assert kept_from([one_row_in(T, T + 1, T + 2)], 4 * ROW - 1) == T + 1
    assert kept_from([one_row_in(T + 2), one_row_in(T), one_row_in(T + 1)], 4 * ROW - 1) == T + 1


def test_no_more_seconds_go_than_free_a_quarter() -> None:
    assert kept_from([one_row_in(*range(T, T + 8))], 4 * ROW) == T + 5
    assert kept_from([one_row_in(T, T + 10, T + 20, T + 30)], 4 * ROW) == T + 1


def test_a_second_goes_with_all_its_rows_whichever_blocks_they_are_in() -> None:
    blocks = [one_row_in(T + 2, T, T + 1), one_row_in(T + 1, T, T)]
    assert kept_from(blocks, 4 * ROW) == T + 1


def test_the_newest_second_stays_however_large_it_is() -> None:
    assert kept_from([one_row_in(T, *[T + 1] * 9)], 4 * ROW) == T + 1
    assert kept_from([one_row_in(T + 1)], 0) == T + 1


@given(st.lists(st.lists(st.integers(T, T + 9), max_size=6), max_size=4), st.integers(0, 24))
def test_what_stays_is_all_that_leaves_a_quarter_free(blocks: Sequence[Sequence[int]], room: int) -> None:
    rows = Counter(second for block in blocks for second in block)
    first = kept_from([empty(), *(one_row_in(*block) for block in blocks)], room * ROW)
    if 4 * rows.total() <= 3 * room:
        assert first is None
        return
    assert first is not None
    stay = sum(n for second, n in rows.items() if second >= first)
    assert 4 * stay <= 3 * room or first == max(rows)
    also = max(second for second in rows if second < first) if first > min(rows) else None
    assert also is None or 4 * (stay + rows[also]) > 3 * room


def test_a_block_of_wide_rows_takes_more_room_than_one_of_narrow_rows() -> None:
    wide, narrow = one_row_in(T), one_row_in(T + 1, T + 2)
    many = np.repeat(wide.instance_cell, 40)
    counts = np.repeat(wide.instance_counts, 40, axis=0)
    wide = replace(wide, instance_cell=many, instance_id=many, instance_counts=counts)
    assert kept_from([wide, narrow], 4 * ROW) == T + 1


def test_seconds_that_nobody_closes_are_given_up_too_and_what_is_said_again_takes_no_room() -> None:
    merge = Merge(["requests"], most_bytes=8 * ROW)
    for _ in range(20):
        merge.add(record(0, None), one_row_in(T, T + 1), 0.0)
    assert merge.lost_until is None
    lost: list[int | None] = []
    for n in range(2, 12):
        merge.add(record(0, None), one_row_in(T + n), 0.0)
        lost.append(merge.lost_until)
    # Nine rows are one too many, and six leave a quarter free.
    assert lost == [None] * 6 + [T + 3] * 3 + [T + 6]
    merge.add(record(0, T + 20.0), empty(), 0.0)
    assert merge.take(T + 20).second.tolist() == list(range(T + 6, T + 12))


def test_who_is_heard_later_and_has_more_to_give_up_does_not_move_what_was_lost_back() -> None:
    merge = Merge(["requests"], most_bytes=8 * ROW)
    merge.add(record(0, None), one_row_in(*range(T, T + 9)), 0.0)
    assert merge.lost_until == T + 3
    merge.add(record(1, None, partitions=2), one_row_in(*range(T - 9, T)), 0.0)
    assert merge.lost_until == T + 3
    assert (merge.watermark, merge.first()) == (None, None)


def test_what_is_complete_is_not_given_up_however_much_it_is() -> None:
    merge = Merge(["requests"], most_bytes=3 * ROW)
    merge.add(record(0, T + 9.0), one_row_in(*range(T, T + 9)), 0.0)
    assert merge.lost_until is None
    assert merge.take(T + 9).second.tolist() == list(range(T, T + 9))


def test_a_watermark_that_closes_nothing_of_what_waits_makes_no_room() -> None:
    merge = Merge(["requests"], most_bytes=4 * ROW)
    merge.add(record(0, float(T)), one_row_in(*range(T, T + 5)), 0.0)
    assert merge.lost_until == T + 2
    # Complete and open seconds share the room: the oldest go first.
    merge = Merge(["requests"], most_bytes=4 * ROW)
    merge.add(record(1, float(T), partitions=2), empty(), 0.0)
    merge.add(record(0, T + 2.0, partitions=2), one_row_in(T, T + 1), 0.0)
    assert merge.first() == T
    merge.add(record(0, None, partitions=2), one_row_in(T + 2, T + 3, T + 4), 0.0)
    assert (merge.lost_until, merge.first()) == (T + 2, None)


def test_as_much_waits_as_there_is_room_for_and_one_byte_more_gives_the_oldest_second_up() -> None:
    records = [(record(0, T + n + 1.0, partitions=2), requests("a", T + n, n + 1)) for n in range(8)]
    row = nbytes(records[0][1])
    enough, short = (Merge(["requests"], most_bytes=room) for room in (8 * row, 8 * row - 1))
    for merge in (enough, short):
        merge.add(record(1, T + 0.5, partitions=2), empty(), 0.0)
        for said, cells in records:
            merge.add(said, cells, 0.0)
    assert (enough.lost_until, enough.first()) == (None, T)
    assert (short.lost_until, short.first()) == (T + 3, T + 3)
    for merge in (enough, short):
        merge.add(record(1, T + 8.0, partitions=2), empty(), 0.0)
    assert taken(enough, T + 8) == {("a", T + n): n + 1 for n in range(8)}
    assert taken(short, T + 8) == {("a", T + n): n + 1 for n in range(3, 8)}


@pytest.mark.parametrize("left", [0, 1])
def test_what_is_taken_makes_room(left: int) -> None:
    merge = Merge(["requests"], most_bytes=(left + 1) * nbytes(requests("a", T, 1)))
    merge.add(record(1, T - 1.0, partitions=2), empty(), 0.0)
    for n in range(9):
        merge.add(record(0, T + n + 1.0, partitions=2), requests("a", T + n, 1), 0.0)
        merge.take(T + n + 1 - left)
    assert merge.lost_until is None
    assert len(merge.take(T + 9)) == left
