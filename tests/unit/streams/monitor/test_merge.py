"""Merging partials counts every second once, whatever is repeated, late or interleaved."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cell_operations import by_second, empty, join
from detectors.cells import REQUESTS, Cells
from streams.monitor.merge import AHEAD, Merge
from streams.partials.batch import PartialBatch, PartialHead
from streams.partials.record import VERSION, Partial
from streams.slices import Source
from tests.support.random_cells import cells_of, random_cells

T = 1_700_000_000
NO_ROWS = np.zeros(0, dtype=np.int64)


def record(
    partition: int, watermark: float | None, *, partitions: int = 1, overflow: int = 0, topic: str = "requests"
) -> Partial:
    return Partial(VERSION, topic, partition, partitions, "a", 0.0, watermark, True, overflow, [], [], [], [])


def requests(service: str, second: int, n: int, offset: int = 0) -> Cells:
    return cells_of([("production", service, second, n, 0)], offset=offset)


def taken(merge: Merge, before: int) -> dict[tuple[str, int], int]:
    found: Counter[tuple[str, int]] = Counter()
    for second, cells in by_second(merge.take(before)):
        for scope, row in zip(cells.scope.tolist(), cells.counts, strict=True):
            found[cells.scopes[scope].service, second] += int(row[REQUESTS])
    return dict(found)


def test_a_second_is_whole_once_every_source_has_passed_it() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, T + 5.0, partitions=2), requests("a", T, 3), 0.0)
    assert merge.missing() == ["requests/1"]
    merge.add(record(1, T + 2.5, partitions=2), requests("a", T, 4), 0.0)
    assert merge.watermark == T + 2.5
    assert taken(merge, T + 2) == {("a", T): 7}


def test_a_topic_nobody_has_spoken_of_keeps_everything_unknown() -> None:
    merge = Merge(["requests", "other"])
    merge.add(record(0, T + 5.0), requests("a", T, 3), 0.0)
    assert merge.watermark is None
    assert merge.missing() == ["other"]


def test_a_final_second_ignores_what_comes_later_for_its_source() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, T + 1.0), requests("a", T, 3, offset=10), 0.0)
    merge.add(record(0, T + 2.0), requests("a", T, 5, offset=20), 0.0)
    assert taken(merge, T + 2) == {("a", T): 3}


def test_of_two_cells_the_higher_offset_counts_and_the_first_of_equals() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, None), requests("a", T, 3, offset=10), 0.0)
    merge.add(record(0, None), requests("a", T, 9, offset=8), 0.0)
    merge.add(record(0, None), requests("b", T, 4, offset=10), 0.0)
    merge.add(record(0, T + 1.0), requests("b", T, 5, offset=10), 0.0)
    assert taken(merge, T + 1) == {("a", T): 3, ("b", T): 4}


def test_a_cell_that_is_said_again_counts_once_though_nothing_else_was_said() -> None:
    merge = Merge(["requests"])
    for watermark in (None, T + 1.0):
        merge.add(record(0, watermark), requests("a", T, 3, offset=10), 0.0)
    assert taken(merge, T + 1) == {("a", T): 3}


def test_a_watermark_never_goes_back() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, T + 5.0), requests("a", T, 1), 0.0)
    merge.add(record(0, T + 3.0), requests("a", T + 4, 1), 0.0)
    assert merge.watermark == T + 5.0
    assert taken(merge, T + 5) == {("a", T): 1}


def test_an_owner_that_does_not_speak_is_silent_and_one_that_lags_is_named() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, T + 5.0, partitions=2), requests("a", T, 1), 100.0)
    merge.add(record(1, T + 1.0, partitions=2), requests("a", T, 1), 109.0)
    assert merge.silent(110.5, 10.0) == ["requests/0"]
    assert merge.silent(110.0, 10.0) == []
    assert merge.lagging(T + 2.0) == ["requests/1"]
    assert merge.lagging(T + 1.0) == []
    # An older record that is read later makes no owner silent.
    merge.add(record(0, T + 6.0, partitions=2), requests("a", T, 1), 90.0)
    assert merge.silent(110.0, 10.0) == []


def test_who_never_said_a_watermark_lags_and_of_those_that_lag_some_have_more_to_read() -> None:
    merge = Merge(["requests"])
    heads = [
        PartialHead(Source("requests", p), 3, mark, 0, caught_up=p == 1)
        for p, mark in enumerate((None, T + 1.0, T + 1.0))
    ]
    merge.add_all(PartialBatch(heads[::-1], empty(), NO_ROWS), 0.0)
    assert merge.lagging(T + 2.0) == ["requests/0", "requests/1", "requests/2"]
    assert merge.lagging(T + 2.0, caught_up=False) == ["requests/0", "requests/2"]


def test_before_anybody_has_spoken_every_topic_is_missing() -> None:
    merge = Merge(["requests", "other"])
    assert merge.missing() == ["other", "requests"]
    assert (merge.watermark, merge.whole_from, merge.first(), merge.lost_until) == (None, None, None, None)


def test_a_partition_that_was_added_is_missing_until_it_speaks() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, T + 5.0), requests("a", T, 1), 0.0)
    assert merge.missing() == []
    merge.add(record(0, T + 6.0, partitions=3), requests("a", T, 1), 0.0)
    # A record of an owner that does not know the new partitions yet changes nothing.
    merge.add(record(0, T + 7.0), requests("a", T, 1), 0.0)
    assert (merge.missing(), merge.watermark) == (["requests/1", "requests/2"], None)


def test_a_record_of_who_was_heard_before_is_expected_and_of_another_topic_too() -> None:
    merge = Merge(["requests"])
    first = PartialHead(Source("requests", 0), 2, None, 0)
    assert not merge.expects(first)
    merge.add_all(PartialBatch([first], empty(), NO_ROWS), 0.0)
    assert merge.expects(first)
    assert merge.expects(first._replace(partitions=1))
    assert not merge.expects(first._replace(partitions=3))
    assert not merge.expects(first._replace(source=Source("requests", 1)))
    assert merge.expects(PartialHead(Source("elsewhere", 9), 10, None, 0))


def test_a_record_of_another_topic_keeps_no_other_of_its_batch_from_counting() -> None:
    merge = Merge(["requests"])
    heads = [PartialHead(Source("elsewhere", 0), 1, T + 9.0, 5), PartialHead(Source("requests", 0), 1, T + 1.0, 0)]
    cells = join([requests("a", T, 3), requests("a", T, 4)])
    assert merge.add_all(PartialBatch(heads, cells, np.array([0, 1])), 0.0) == [T + 1.0]
    assert (taken(merge, T + 1), merge.overflow) == ({("a", T): 4}, 0)


def test_samples_that_were_received_are_known_of_also_where_none_was_rejected() -> None:
    merge = Merge(["requests"])
    for mark, received, rejected in ((T + 1.0, 5, 5), (T + 2.0, 20, 0), (T + 3.0, 0, 0)):
        merge.add_all(
            PartialBatch([PartialHead(Source("requests", 0), 1, mark, 0, received, rejected)], empty(), NO_ROWS), 0.0
        )
    assert merge.unread.over(T + 3, 3) == {"requests": (25, 5)}


def test_a_watermark_further_ahead_than_clocks_differ_is_not_believed_and_named_until_a_later_word() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, T + AHEAD, partitions=2), requests("a", T, 1), 0.0, float(T))
    merge.add(record(1, T + AHEAD + 2, partitions=2), requests("a", T, 1), 0.0, float(T))
    assert merge.watermark is None
    assert merge.ahead(float(T)) == {"requests/1": AHEAD + 2}
    assert merge.ahead(T + 2.0) == {}
    # Records without a watermark do not change that.
    merge.add(record(1, None, partitions=2), requests("a", T, 1), 0.0, float(T))
    assert merge.ahead(float(T)) == {"requests/1": AHEAD + 2}
    merge.add(record(1, T + 1.0, partitions=2), requests("a", T, 1), 0.0, float(T))
    assert merge.ahead(float(T)) == {}
    assert merge.watermark == T + 1.0


def test_a_watermark_that_was_believed_is_ahead_once_the_clock_is_back() -> None:
    merge = Merge(["requests"])
    for partition in (1, 0):
        merge.add(record(partition, T + 600.0, partitions=2), requests("a", T, 1), 0.0)
    assert merge.ahead(float(T)) == {"requests/0": 600.0, "requests/1": 600.0}
    assert list(merge.ahead(float(T))) == ["requests/0", "requests/1"]


def test_what_found_no_room_upstream_is_counted() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, T + 1.0, overflow=7), requests("a", T, 1), 0.0)
    merge.add(record(0, T + 2.0, overflow=2), requests("a", T, 1), 0.0)
    assert merge.overflow == 9


@given(st.lists(random_cells(), min_size=1, max_size=4))
def test_joining_and_cutting_keep_every_number(blocks: list[Cells]) -> None:
    joined = join(blocks)
    assert len(joined) == sum(map(len, blocks))
    parts = list(by_second(joined))
    assert [second for second, _ in parts] == sorted({int(s) for block in blocks for s in block.second})
    for name in ("counts", "hist_count", "instance_counts", "measure_sum"):
        before = sum(int(getattr(block, name).sum()) for block in blocks)
        assert sum(int(getattr(part, name).sum()) for _, part in parts) == before
    for block in blocks:
        for row, second in enumerate(block.second.tolist()):
            part = dict(parts)[second]
            scope = block.scopes[block.scope[row]]
            same = [i for i in range(len(part)) if part.scopes[part.scope[i]] == scope]
            assert any(np.array_equal(part.counts[i], block.counts[row]) for i in same)


@given(st.data())
def test_repeats_restarts_and_zombies_change_nothing(data: st.DataObject) -> None:
    """A source's log with re-reads: a new owner starts at a committed offset while the old one still writes."""
    seconds = data.draw(st.integers(2, 6))
    per_second = [data.draw(st.integers(0, 4)) for _ in range(seconds)]
    # Samples in order, as (offset, second): offsets are 0, 1, 2, ...
    offsets = [(offset, T + s) for offset, s in enumerate(s for s, n in enumerate(per_second) for _ in range(n))]

    def log_of(start: int) -> list[tuple[Partial, Cells]]:
        """The records of an owner that starts to read when seconds before `start` are closed; one flush a second."""
        first = min((o for o, s in offsets if s >= T + start), default=len(offsets))
        out = []
        for s in range(seconds):
            mine = [o for o, second in offsets if second == T + s and o >= first]
            cells = requests("a", T + s, len(mine), offset=mine[-1]) if mine else requests("a", T + s, 0)
            out.append((record(0, float(T + s + 1)), cells if mine else cells_of([])))
        return out

    first = log_of(0)
    again = log_of(data.draw(st.integers(0, seconds - 1)))
    # The new owner starts where the acknowledged seconds of the old one end, so its log follows at least these.
    merged, i, j = [], 0, 0
    restart = next((k for k, (_, cells) in enumerate(again) if len(cells)), len(again))
    while i < len(first) or j < len(again):
        take_old = i < len(first) and (j >= len(again) or i < restart or data.draw(st.booleans()))
        merged.append(first[i] if take_old else again[j])
        i, j = (i + 1, j) if take_old else (i, j + 1)
        if data.draw(st.booleans()):
            merged.append(merged[-1])
    merge = Merge(["requests"])
    found: Counter[tuple[str, int]] = Counter()
    for partial, cells in merged:
        merge.add(partial, cells, 0.0)
        found.update(taken(merge, T + data.draw(st.integers(0, seconds))))
    found.update(taken(merge, T + seconds))
    assert {second - T: n for (_, second), n in found.items() if n} == {s: n for s, n in enumerate(per_second) if n}


def test_nothing_is_taken_before_there_is_a_watermark() -> None:
    merge = Merge(["requests"])
    merge.add(record(0, None), requests("a", T, 3), 0.0)
    assert not len(merge.take(T + 10))


@pytest.mark.parametrize("topic", ["elsewhere"])
def test_a_source_of_another_topic_is_not_counted(topic: str) -> None:
    merge = Merge([topic])
    merge.add(record(0, T + 1.0), requests("a", T, 3), 0.0)
    assert taken(merge, T + 1) == {}


def test_read_from_the_middle_of_the_log_only_whole_seconds_count() -> None:
    merge = Merge(["requests"], from_start=False)
    merge.add(record(0, T + 3.0, partitions=2), requests("a", T + 2, 3), 0.0)
    merge.add(record(1, T + 5.5, partitions=2), requests("a", T + 4, 3), 0.0)
    # Cells of source 1 for the seconds before T + 5 may have been written before the first record that was read.
    assert merge.whole_from == T + 5
    merge.add(record(1, T + 9.0, partitions=2), empty(), 0.0)
    assert merge.whole_from == T + 5


def test_read_from_its_start_every_second_of_the_log_is_whole() -> None:
    merge = Merge(["requests"])
    for watermark in (T + 3.0, T + 4.0):
        merge.add(record(0, watermark), empty(), 0.0)
    assert merge.whole_from is None


def test_a_watermark_that_is_said_again_leads_to_none() -> None:
    merge = Merge(["requests"])
    heads = [PartialHead(Source("requests", 0), 1, mark, 0) for mark in (T + 1.0, T + 1.0, T + 2.0, T + 1.5)]
    assert merge.add_all(PartialBatch(heads[:1], empty(), NO_ROWS), 0.0) == [T + 1.0]
    assert merge.add_all(PartialBatch(heads[1:2], empty(), NO_ROWS), 0.0) == []
    assert merge.add_all(PartialBatch(heads, empty(), NO_ROWS), 0.0) == [T + 2.0]
