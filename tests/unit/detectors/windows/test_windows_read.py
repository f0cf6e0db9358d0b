"""Reading a window: latencies by rank and above a limit, counts by instance, and how long it has been running."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cell_operations import join
from detectors.cells import COUNTS, ERRORS, MEASURE_SCALE, REQUESTS
from detectors.histogram import BINS, OCTAVES, midpoints_ms
from detectors.windows.store import Want
from detectors.windows.unreadable import unreadable
from tests.support.cells import Cell, cells
from tests.unit.detectors.windows.test_store import A, B, C, D, requests, store


def timed(bins: dict[int, int]) -> Cell:
    return Cell({"latency_count": sum(bins.values())}, bins)


bins_of = st.dictionaries(
    st.one_of(st.integers(0, BINS - 1), st.sampled_from([100, 101])), st.integers(1, 4), max_size=4
)


@given(st.lists(bins_of, min_size=3, max_size=3), st.integers(0, BINS))
def test_latencies_are_found_by_rank_and_counted_from_a_bin_on(of: list[dict[int, int]], first: int) -> None:
    # Rows 0 to 2 of the window have a histogram; C is wanted without one.
    windows = store(Want(A, 3, latency=True), Want(B, 3, latency=True), Want(D, 3, latency=True), Want(C, 3))
    timings = [(scope, timed(bins)) for scope, bins in zip((A, B, D), of, strict=True)]
    windows.advance(1, cells(1, *timings, (C, timed({5: 5}))))
    window = windows.window(3)
    every = (*(windows.row(scope, 3) for scope in (B, D, A, C)), -1)
    rows = np.array(every)
    for at, bins in enumerate((of[1], of[2], of[0])):
        values = sorted(bin_ for bin_, n in bins.items() for _ in range(n))
        # A rank below the first gives the first value, and one beyond the last gives the last.
        ranks = range(-2, len(values) + 3)
        found = window.at_rank(np.full(len(ranks), rows[at]), np.array(ranks))
        places = [min(max(rank, 1), len(values)) - 1 for rank in ranks]
        expected = [midpoints_ms()[values[place]] if values else math.nan for place in places]
        np.testing.assert_array_equal(found, expected)
        dense = np.zeros(BINS, dtype=np.int64)
        dense[list(bins)] = list(bins.values())
        np.testing.assert_array_equal(window.histogram(int(rows[at])), dense, strict=True)
        # From each value's own bin on, from the next bin, from the drawn bin, and from beyond all bins.
        firsts = np.array([*values, *(value + 1 for value in values), first, BINS])
        above = window.above(np.full(len(firsts), rows[at]), firsts)
        own = np.array([sum(value >= bin_ for value in values) for bin_ in firsts], dtype=np.int64)
        np.testing.assert_array_equal(above, own, strict=True)
    assert np.isnan(window.at_rank(rows[3:], np.ones(2, dtype=np.int64))).all()
    assert window.above(rows[3:], np.zeros(2, dtype=np.int64)).tolist() == [0, 0]
    np.testing.assert_array_equal(window.histogram(every[3]), np.zeros(BINS, dtype=np.int64), strict=True)


def test_more_latencies_than_a_bin_can_count_have_no_rank() -> None:
    windows = store(Want(A, 3, latency=True))
    window, row = windows.window(3), np.array([0])

    def found(at: int, bins: dict[int, int]) -> list[float]:
        windows.advance(at, cells(at, (A, timed(bins))))
        return [window.quantile(row, 0.5)[0], window.at_rank(row, np.array([1]))[0]]

    assert found(1, {100: 1 << 31, 400: (1 << 31) - 1}) == [midpoints_ms()[100]] * 2
    assert np.isnan(found(10, {100: 1 << 31, 400: 1 << 31})).all()
    # The sum of one bin has wrapped to 0; the other bin must not count as all latencies.
    assert np.isnan(found(20, {100: 1 << 32, 400: 9})).all()
    assert found(30, {300: 9}) == [midpoints_ms()[300]] * 2


def test_counts_and_instances_are_those_since_a_second_of_the_window() -> None:
    windows = store(Want(A, 4))
    for second in range(1, 8):
        one = {f"pod-{second % 2}": {"requests": 1 << second}, "sidecar": {"errors": 1}}
        windows.advance(
            second, cells(second, (A, Cell({"requests": 1 << second, "errors": 1}, instances=one)), (B, requests(9)))
        )
    for since, seconds in ((0, range(4, 8)), (4, range(4, 8)), (6, range(6, 8)), (7, [7]), (8, [])):
        counts = windows.counts(A, 4, since)
        assert len(counts) == len(COUNTS)
        assert counts.dtype == np.int64
        assert (counts[REQUESTS], counts[ERRORS]) == (sum(1 << s for s in seconds), len(seconds))
        found = windows.instances(A, 4, since)
        expected = {f"pod-{odd}": sum(1 << s for s in seconds if s % 2 == odd) for odd in (0, 1)}
        assert {name: own[REQUESTS] for name, own in found.items() if name != "sidecar"} == {
            name: n for name, n in expected.items() if n
        }
        assert list(found) == sorted(found)
    assert windows.counts(A, 5)[REQUESTS] == sum(1 << s for s in range(3, 8))
    # B is in the display window, but is not wanted over 4 s.
    assert windows.counts(B, 4).tolist() == [0] * len(COUNTS)
    assert windows.counts(B, 4).dtype == np.int64
    assert (windows.instances(B, 4), windows.counts(B, 5)[REQUESTS]) == ({}, 45)


def test_counts_are_of_the_whole_window_where_no_second_is_named() -> None:
    windows = store(Want(A, 4))
    windows.advance(0, cells(0, (A, Cell({"requests": 3}, instances={"pod": {"requests": 2}}))))
    assert windows.counts(A, 4)[REQUESTS] == 3
    assert windows.instances(A, 4)["pod"][REQUESTS] == 2


def test_an_instance_of_which_a_window_tells_has_its_name() -> None:
    windows = store(Want(A, 3))
    windows.advance(1, cells(1, (A, Cell(instances={name: {"requests": 1} for name in ("pod-b", "pod-a")}))))
    numbers = {number for second in windows.window(3).seconds_kept for number in second.instance_ids.tolist()}
    assert {windows.instance(number) for number in numbers} == {"pod-a", "pod-b"}


def test_the_span_of_a_window_is_what_of_it_the_store_has_been_running_for() -> None:
    windows = store(Want(A, 3))
    assert windows.span(3) == 0
    spans = []
    for second in (100, 101, 102, 103, 110):
        windows.advance(second)
        spans.append((windows.span(3), windows.span(5)))
    assert spans == [(1, 1), (2, 2), (3, 3), (3, 4), (3, 5)]


def test_each_measure_has_its_own_columns_though_it_is_named_twice() -> None:
    windows = store(Want(A, 3), measures=("price", "score", "price", "weight"))
    worth = {"price": (1, 5.0), "score": (2, 7.0), "weight": (3, -9.0)}
    windows.advance(1, cells(1, (A, Cell(measures=worth))))
    sums = windows.window(3).sums[:, windows.row(A, 3)]
    assert sums.dtype == np.int64
    for name, (n, total) in worth.items():
        count, sum_ = windows.measure_columns(name)
        assert (sums[count], sums[sum_]) == (n, MEASURE_SCALE * total)
    with pytest.raises(KeyError):
        windows.measure_columns("colour")


def test_a_block_that_was_prepared_counts_as_one_that_comes_second_by_second() -> None:
    one, other = (store(Want(A, 3, latency=True), measures=("score",)) for _ in range(2))
    all_cells = [
        Cell({"requests": n, "latency_count": 1}, {n: 1}, {f"pod-{n}": {"requests": n}}, {"score": (1, n)})
        for n in range(1, 5)
    ]
    blocks = [cells(10 + 2 * n, (A, cell), (B, cell)) for n, cell in enumerate(all_cells)]
    prepared = other.prepared(join(blocks))
    assert sorted(prepared) == [10, 12, 14, 16]
    for second in range(10, 18):
        own = [block for block in blocks if block.second[0] == second]
        one.advance(second, *own)
        other.advance_prepared(second, prepared.get(second))
        for seconds in (3, 5):
            np.testing.assert_array_equal(one.window(seconds).sums, other.window(seconds).sums)
            np.testing.assert_array_equal(one.window(seconds).seen, other.window(seconds).seen)
        assert {name: n.tolist() for name, n in one.instances(A, 5).items()} == {
            name: n.tolist() for name, n in other.instances(A, 5).items()
        }
        assert (one.newest(B), one.active(), one.end) == (other.newest(B), other.active(), other.end)


@pytest.mark.parametrize("prepares", [True, False])
def test_what_a_block_names_but_has_no_cell_of_takes_no_room(prepares: bool) -> None:
    windows = store(max_scopes=2)
    block = cells(1, (A, Cell(instances={"pod": {"requests": 1}})))
    # D and C come first in the table of scopes, and an unused name in that of instances.
    block = replace(block, scopes=(D, C, A), scope=block.scope + 2)
    block = replace(block, instances=("ghost", "pod"), instance_id=block.instance_id + 1)
    if prepares:
        assert sorted(windows.prepared(block)) == [1]
    else:
        windows.advance(1, block)
    assert [windows.slot(scope) for scope in (A, C, D)] == [0, -1, -1]
    assert (windows.instance(0), windows.refused_scopes) == ("pod", 0)
    with pytest.raises(KeyError):
        windows.instance(1)


def test_nothing_is_prepared_of_which_not_all_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.windows.store.MAX_INSTANCES", 1)
    of_two = [Cell(instances={name: {"requests": 1}}) for name in ("a", "b")]
    assert store(max_scopes=1).prepared(cells(1, (A, requests(1)), (B, requests(1)))) == {}
    assert store(max_scopes=2).prepared(cells(1, (A, of_two[0]), (B, of_two[1]))) == {}
    assert sorted(store(max_scopes=2).prepared(cells(1, (A, of_two[0]), (B, of_two[0])))) == [1]
    assert store().prepared(cells(1)) == {}


def test_who_is_not_in_a_prepared_second_was_not_seen_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.windows.store.MAX_INSTANCES", 2)
    windows = store(display=3)
    windows.advance(1, cells(1, (A, Cell(instances={"gone": {"requests": 1}}))))
    other = Cell({"requests": 1}, instances={"here": {"requests": 1}})
    prepared = windows.prepared(join([cells(second, (B, other)) for second in range(2, 7)]))
    for second in range(2, 7):
        windows.advance_prepared(second, prepared[second])
    assert (windows.newest(A), windows.newest(B), windows.active()) == (1, 6, [B])
    # An instance that has left every window makes room for another.
    windows.advance(7, cells(7, (B, Cell(instances={"new": {"requests": 1}}))))
    assert list(windows.instances(B, 3)) == ["here", "new"]


def test_what_outlives_the_windows_is_known_again_after_a_restart_and_what_was_seen_since_stays() -> None:
    wants = Want(A, 3), Want(D, 3), Want(B, 9), Want(C, 9), Want(A, 9)
    before, after = store(*wants), store(*wants)
    before.advance(100, cells(100, (A, requests(1)), (B, requests(1))))
    before.advance(190, cells(190, (A, requests(1))))
    after.advance(200, cells(200, (C, requests(1))))
    after.restore(before.state())
    slots = np.array([after.slot(scope) for scope in (A, B, C)])
    assert after.seen_at(slots).tolist() == [190, 100, 200]
    assert after.newest(D) is None
    seen = {(scope, seconds) for scope, seconds, _ in wants if after.window(seconds).seen[after.row(scope, seconds)]}
    assert seen == {(A, 3), (B, 9), (C, 9), (A, 9)}
    assert after.window(5).seen[slots].all()
    assert not after.window(5).seen[after.slot(D)]


def test_a_store_that_nobody_wants_a_scope_of_remembers_none() -> None:
    windows = store()
    windows.advance(1, cells(1, (A, requests(1))))
    memory = windows.state()
    assert {name: array.tolist() for name, array in memory.items()} == {"5": [], "newest": []}
    windows.restore(memory)
    assert windows.newest(A) == 1


def test_a_store_is_as_large_as_its_windows_and_the_seconds_that_they_share() -> None:
    windows = store(Want(A, 3, latency=True), Want(B, 3), Want(A, 9), max_scopes=4)
    assert windows.max_scopes == 4
    histogram = 4 * (BINS + OCTAVES)
    # The display window has every scope with a histogram; the others have the wanted scopes.
    own = [(8 * len(COUNTS) + 1) * rows + histogram * timed for rows, timed in ((4, 4), (2, 1), (1, 0))]
    assert windows.nbytes == sum(own) + windows.by_second.nbytes
    assert windows.by_second.nbytes > 0
    before = windows.nbytes
    windows.advance(1, cells(1, (A, timed({100: 2})), (B, requests(1)), (C, requests(1))))
    # The display window keeps the whole second; the others share one part of it.
    (shown,), (asked,), (also,) = (windows.window(seconds).seconds_kept for seconds in (5, 3, 9))
    assert asked is also
    assert windows.nbytes - before == shown.nbytes + asked.nbytes


@pytest.mark.parametrize("prepares", [True, False])
def test_values_that_cannot_be_read_are_in_the_windows_of_their_seconds_however_these_come(prepares: bool) -> None:
    windows, name = store(Want(A, 3)), unreadable("latency")
    place, sums = windows.unread.place(A, name), windows.unread.window(3)
    blocks = {10 + n: cells(10 + n, (A, Cell(measures={name: (n, 0.0)}))) for n in range(1, 5)}
    prepared = windows.prepared(join([*blocks.values()])) if prepares else {}
    found = []
    for second in range(11, 17):
        if prepares:
            windows.advance_prepared(second, prepared.get(second))
        else:
            windows.advance(second, *(block for at, block in blocks.items() if at == second))
        found += sums.read(np.array([place])).tolist()
    assert found == [1, 3, 6, 9, 7, 4]


def test_a_window_of_one_second_holds_the_newest() -> None:
    windows = store(Want(A, 1), display=1)
    for second, n in ((7, 3), (8, 5)):
        windows.advance(second, cells(second, (A, requests(n))))
        assert windows.counts(A, 1)[REQUESTS] == n
    windows = store(Want(A, 1), display=2)
    windows.advance(7, cells(7, (A, requests(3))))
    assert windows.counts(A, 1)[REQUESTS] == 3
    for refused in ((), (Want(A, 9),)):
        with pytest.raises(ValueError, match="at least 1 second"):
            store(*refused, display=0)
