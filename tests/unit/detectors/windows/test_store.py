"""The sliding windows."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import COUNTS, ERRORS, LATE, MEASURE_SCALE, REQUESTS, Scope
from detectors.histogram import BINS, midpoints_ms, quantile
from detectors.windows.store import Want, WindowStore
from tests.support.cells import Cell, cells

SCOPES = [Scope("production", name) for name in "abcd"]
A, B, C, D = SCOPES


def requests(n: int, **others: int) -> Cell:
    return Cell(counts={"requests": n, **others})


def store(*wants: Want, max_scopes: int = 8, display: int = 5, measures: tuple[str, ...] = ()) -> WindowStore:
    return WindowStore(wants, max_scopes=max_scopes, display=display, measures=measures)


def requests_in(windows: WindowStore, scope: Scope, seconds: int) -> int:
    return int(windows.window(seconds).sums[REQUESTS][windows.row(scope, seconds)])


counts = st.dictionaries(st.sampled_from(COUNTS), st.one_of(st.integers(0, 300), st.integers(0, 2**40)), max_size=4)
all_cells = st.builds(
    Cell,
    counts=counts,
    bins=st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 70_000), max_size=4),
    instances=st.dictionaries(st.sampled_from(["pod-0", "pod-1", "pod-2"]), counts, max_size=2),
    measures=st.dictionaries(
        st.sampled_from(["quality", "unwatched", "cost"]),
        st.tuples(st.integers(1, 9), st.integers(-99, 10**9)),
        max_size=2,
    ),
)
seconds_of_blocks = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 1, 2, 3, 5, 11, 10**9]),
        st.lists(st.lists(st.tuples(st.sampled_from(SCOPES), all_cells), max_size=4), max_size=3),
    ),
    max_size=16,
)


@settings(deadline=None, max_examples=60)
@given(seconds_of_blocks)
def test_windows_are_the_plain_sum_over_their_seconds(
    series: list[tuple[int, list[list[tuple[Scope, Cell]]]]],
) -> None:
    wants = [Want(B, 3, latency=True), Want(A, 3), Want(A, 10), Want(C, 10, latency=True), Want(A, 5, latency=True)]
    windows = store(*wants, measures=("cost", "quality"))
    history: list[tuple[int, Scope, Cell]] = []
    second = 1_700_000_000
    for step, blocks in series:
        second += step
        windows.advance(second, *(cells(second, *rows) for rows in blocks))
        history += [(second, scope, cell) for rows in blocks for scope, cell in rows]
        end = second + 1
        for scope, seconds in {(w.scope, w.seconds) for w in wants} | {(s, 5) for s in SCOPES}:
            inside = [b for s, owner, b in history if owner == scope and end - seconds <= s < end]
            row = windows.row(scope, seconds)
            if row < 0:
                assert scope not in (A, B, C)
                assert not inside
                continue
            window = windows.window(seconds)
            expected = [sum(b.counts.get(name, 0) for b in inside) for name in COUNTS]
            for name in ("cost", "quality"):
                expected.append(sum(b.measures[name][0] for b in inside if name in b.measures))
                expected.append(MEASURE_SCALE * sum(round(b.measures[name][1]) for b in inside if name in b.measures))
            assert window.sums[:, row].tolist() == expected

            instances = {name for b in inside for name in b.instances}
            found = windows.instances(scope, seconds)
            assert list(found) == sorted(instances)
            for name, values in found.items():
                own = [b.instances[name] for b in inside if name in b.instances]
                assert values.tolist() == [sum(c.get(column, 0) for c in own) for column in COUNTS]


@settings(deadline=None, max_examples=60)
@given(seconds_of_blocks, st.floats(0, 1))
def test_quantiles_are_those_of_the_bins_inside(
    series: list[tuple[int, list[list[tuple[Scope, Cell]]]]], q: float
) -> None:
    windows = store(Want(B, 3, latency=True), Want(A, 3))
    history: list[tuple[int, Scope, Cell]] = []
    second = 0
    for step, blocks in series:
        second += step
        timed = [
            [(s, Cell(counts={"latency_count": sum(b.bins.values())}, bins=b.bins)) for s, b in rows] for rows in blocks
        ]
        windows.advance(second, *(cells(second, *rows) for rows in timed))
        history += [(second, scope, cell) for rows in timed for scope, cell in rows]
        for scope, seconds in [(B, 3), *((s, 5) for s in SCOPES)]:
            row = windows.row(scope, seconds)
            if row < 0:
                continue
            total: Counter[int] = Counter()
            for s, owner, cell in history:
                if owner == scope and s > second - seconds:
                    total.update(cell.bins)
            dense = np.zeros(BINS, dtype=np.int64)
            dense[list(total)] = list(total.values())
            got = windows.window(seconds).quantile(np.array([row]), q)
            np.testing.assert_array_equal(got, quantile(dense[np.newaxis], q))


def test_a_window_holds_its_first_second_and_not_its_end() -> None:
    windows = store(Want(A, 3))
    for second in range(10, 20):
        windows.advance(second, cells(second, (A, requests(1 << (second - 10)))))
        assert windows.end == second + 1
        expected = sum(1 << (s - 10) for s in range(max(10, second - 2), second + 1))
        assert requests_in(windows, A, 3) == expected


def test_a_gap_empties_the_windows_it_is_longer_than() -> None:
    windows = store(Want(A, 3), Want(A, 10))
    windows.advance(0, cells(0, (A, requests(7))))
    windows.advance(4)
    assert (requests_in(windows, A, 3), requests_in(windows, A, 10)) == (0, 7)
    windows.advance(10**12)
    assert requests_in(windows, A, 10) == 0


def test_a_scope_that_stands_in_several_blocks_or_twice_in_one_is_summed() -> None:
    windows = store(Want(A, 3, latency=True))
    twice = Cell(counts={"requests": 2, "latency_count": 2}, bins={100: 2}, instances={"p": {"requests": 2}})
    windows.advance(1, cells(1, (A, twice), (B, twice), (A, twice)), cells(1, (B, twice), (A, twice)))
    assert requests_in(windows, A, 3) == 6
    assert requests_in(windows, B, 5) == 4
    assert windows.instances(A, 3)["p"][REQUESTS] == 6
    assert windows.window(3).quantile(np.array([windows.row(A, 3)]), 0.5)[0] == midpoints_ms()[100]


def test_the_order_of_blocks_and_rows_changes_nothing() -> None:
    rows = [(s, Cell({"requests": i + 1}, {i: 1}, {f"p{i}": {"requests": 1}})) for i, s in enumerate(SCOPES)]
    one, other = (store(*(Want(s, 9) for s in SCOPES), max_scopes=4) for _ in range(2))
    one.advance(5, cells(5, *rows))
    other.advance(5, cells(5, rows[3]), cells(5, rows[1], rows[0]), cells(5, rows[2]))
    np.testing.assert_array_equal(one.window(9).sums, other.window(9).sums)
    assert [one.instances(s, 9).keys() for s in SCOPES] == [other.instances(s, 9).keys() for s in SCOPES]


def test_display_tracks_what_nobody_asked_for_and_other_windows_do_not() -> None:
    windows = store(Want(A, 3))
    windows.advance(1, cells(1, (A, requests(1)), (B, requests(2))))
    assert requests_in(windows, B, 5) == 2
    assert windows.row(B, 3) == -1
    assert windows.active() == [A, B]
    assert windows.instances(C, 5) == {}


def test_scopes_beyond_the_limit_are_refused_and_counted_and_wanted_ones_are_not() -> None:
    windows = store(Want(D, 3), max_scopes=2)
    windows.advance(1, cells(1, (C, requests(1)), (B, requests(2)), (D, requests(3))))
    assert windows.active() == [B, D]
    assert windows.refused_scopes == 1
    assert requests_in(windows, D, 3) == 3


def test_a_wanted_scope_beyond_the_limit_has_no_row() -> None:
    windows = store(Want(A, 3), Want(B, 3), max_scopes=1)
    windows.advance(1, cells(1, (B, requests(1))))
    assert windows.row(B, 3) == -1


def test_a_scope_that_takes_the_place_of_a_silent_one_starts_from_nothing() -> None:
    windows = store(max_scopes=1)
    spent = Cell({"requests": 5, "latency_count": 5}, {100: 5}, {"old": {"requests": 5}})
    windows.advance(1, cells(1, (A, spent)))
    windows.advance(5, cells(5, (B, requests(1))))
    assert windows.row(B, 5) == -1, "A is still in the window [1, 6)"
    windows.advance(6, cells(6, (B, Cell({"requests": 1, "latency_count": 1}, {300: 1}))))
    assert windows.active() == [B]
    assert requests_in(windows, B, 5) == 1
    assert windows.window(5).quantile(np.array([0]), 0.01)[0] == midpoints_ms()[300]
    assert windows.instances(B, 5) == {}


def test_seen_is_who_ever_had_a_second_and_filled_is_since_the_store_began() -> None:
    windows = store(Want(A, 3), Want(B, 3))
    window = windows.window(3)
    assert window.filled is False
    windows.advance(1, cells(1, (A, requests(0))))
    assert (bool(window.seen[windows.row(A, 3)]), bool(window.seen[windows.row(B, 3)])) == (True, False)
    assert not window.filled
    windows.advance(2)
    assert not window.filled
    windows.advance(3)
    assert window.filled


def test_a_quantile_of_more_values_than_a_bin_can_count_is_not_given() -> None:
    windows = store(Want(A, 5, latency=True))
    most = 2**32 - 1
    row = np.array([windows.row(A, 5)])
    windows.advance(1, cells(1, (A, Cell({"latency_count": most}, {100: most}))))
    assert windows.window(5).quantile(row, 0.5)[0] == midpoints_ms()[100]
    windows.advance(2, cells(2, (A, Cell({"latency_count": 1}, {100: 1}))))
    assert math.isnan(windows.window(5).quantile(row, 0.5)[0])
    windows.advance(6)
    assert windows.window(5).quantile(row, 0.5)[0] == midpoints_ms()[100], "what wrapped is whole again"


def test_rows_without_a_histogram_have_no_quantile() -> None:
    windows = store(Want(A, 3), Want(B, 3, latency=True))
    timed = Cell({"latency_count": 1}, {100: 1})
    windows.advance(1, cells(1, (A, timed), (B, timed)))
    got = windows.window(3).quantile(np.array([windows.row(A, 3), windows.row(B, 3)]), np.array([0.5, 0.5]))
    assert got.tolist()[1] == midpoints_ms()[100]
    assert math.isnan(got[0])


def test_instances_beyond_the_limit_are_left_out_until_others_have_left_every_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detectors.windows.store.MAX_INSTANCES", 2)
    windows = store(Want(A, 10), display=3)

    def advance(second: int, *names: str) -> list[str]:
        windows.advance(second, cells(second, (A, Cell(instances={name: {"requests": 1} for name in names}))))
        return list(windows.instances(A, 10))

    assert advance(1, "c", "b", "a") == ["a", "b"]
    assert advance(10, "d") == ["a", "b"]
    assert advance(11, "d", "e") == ["d", "e"]


def test_the_same_bin_of_many_sources_is_kept_once() -> None:
    one, many = store(Want(A, 5, latency=True)), store(Want(A, 5, latency=True))
    block = cells(1, (A, Cell({}, dict.fromkeys(range(20), 1), {"p": {"requests": 1}})))
    one.advance(1, block)
    many.advance(1, *[block] * 8)
    assert many.nbytes == one.nbytes


def test_time_does_not_go_back() -> None:
    windows = store()
    windows.advance(7)
    with pytest.raises(ValueError, match="already committed"):
        windows.advance(7)


def test_cells_of_another_second_are_refused_and_leave_nothing() -> None:
    windows = store(Want(A, 3))
    with pytest.raises(ValueError, match="other seconds than 7"):
        windows.advance(7, cells(7, (A, requests(1))), cells(8, (A, requests(1))))
    assert windows.end is None
    windows.advance(7)
    assert requests_in(windows, A, 3) == 0


def test_a_window_nobody_asked_for_is_an_error() -> None:
    with pytest.raises(KeyError):
        store(Want(A, 3)).window(4)
    with pytest.raises(ValueError, match="at least 1 second"):
        store(Want(A, 0))


def test_a_full_window_takes_no_more_than_15_kb_a_scope() -> None:
    scopes = [Scope("production", f"s{i}") for i in range(50)]
    windows = store(*(Want(s, 60, latency=True) for s in scopes), max_scopes=50, display=60)
    for second in range(70):
        cell = Cell(
            dict.fromkeys(COUNTS, 100) | {"latency_us": 10**7},
            {300 + (second * 7 + i * 13) % 200: 5 for i in range(20)},
            {f"pod-{i}": {"requests": 33, "latency_us": 10**6} for i in range(3)},
        )
        windows.advance(second, cells(second, *((s, cell) for s in scopes)))
    assert windows.nbytes / len(scopes) < 15_000


def test_newest_is_the_last_second_in_which_a_scope_had_cells() -> None:
    windows = store(Want(A, 3), Want(B, 3))
    windows.advance(7, cells(7, (A, requests(1))))
    windows.advance(9, cells(9, (C, requests(1))))
    assert (windows.newest(A), windows.newest(B), windows.newest(C), windows.newest(D)) == (7, None, 9, None)


def test_sums_of_cells_at_their_bound_do_not_wrap_in_the_longest_window() -> None:
    scope = Scope("production", "shop")
    store = WindowStore([Want(scope, 3600)], max_scopes=2, measures=["score"])
    most = dict.fromkeys(COUNTS, 1 << 53)
    huge = Cell(most, instances={"a": most}, measures={"score": (1 << 53, -(2.0**53) / MEASURE_SCALE)})
    for second in range(3700):
        store.advance(second, cells(second, (scope, huge)))
    sums = store.window(3600).sums[:, 0]
    # Percentages are computed from counts, so a hundred times the count must fit too.
    assert (sums[: len(COUNTS)] > 0).all()
    assert (100 * sums[[REQUESTS, ERRORS, LATE]] > 0).all()
    assert sums[len(COUNTS) + 1] < 0
    for second in range(3700, 3700 + 3600):
        store.advance(second)
    assert not store.window(3600).sums.any()
