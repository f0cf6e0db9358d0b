"""Sums of values that could not be read, by window, compared with plain loops; read at once or second by second."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cell_operations import join
from detectors.cells import Scope
from detectors.windows.second import MOST_COUNTED
from detectors.windows.store import Want, WindowStore
from detectors.windows.unreadable import unreadable
from tests.support.cells import Cell, cells

SCOPES = [Scope("production", "shop"), Scope("production", "shop", "new", "on"), Scope("staging", "shop")]
NAMES = [unreadable("latency"), unreadable("cache"), unreadable("variant", "new"), "score"]
PLACES = [(scope, name) for scope in SCOPES for name in NAMES[:3]]
LENGTHS = [1, 3, 60]

Row = tuple[Scope, dict[str, tuple[int, float]]]

rows: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(
        st.sampled_from(SCOPES),
        st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9).map(lambda n: (n, 1.0)), max_size=4),
    ),
    max_size=4,
    unique_by=lambda row: row[0],
)


def made() -> WindowStore:
    store = WindowStore([Want(SCOPES[0], seconds) for seconds in LENGTHS], max_scopes=8)
    for scope, name in PLACES:
        store.unread.place(scope, name)
    for seconds in LENGTHS:
        store.unread.window(seconds)
    return store


def sums(store: WindowStore, seconds: int) -> list[int]:
    places = np.array([store.unread.place(*place) for place in PLACES] + [-1], dtype=np.int64)
    found: list[int] = store.unread.window(seconds).read(places).tolist()
    return found


@settings(deadline=None, max_examples=80)
@given(st.lists(st.lists(rows, max_size=2), min_size=1, max_size=8), st.booleans())
def test_windows_hold_what_came_in_their_seconds(series: list[list[list[Row]]], at_once: bool) -> None:
    blocks = [
        [cells(second, *((scope, Cell({"requests": 9}, measures=given)) for scope, given in of)) for of in parts]
        for second, parts in enumerate(series)
    ]
    store = made()
    whole = join([block for parts in blocks for block in parts]) if any(blocks) else None
    prepared = store.prepared(whole) if at_once and whole is not None else None
    for second, parts in enumerate(blocks):
        if prepared is None:
            store.advance(second, *parts)
        else:
            store.advance_prepared(second, prepared.get(second))
        for length in LENGTHS:
            inside = [row for parts_ in series[max(0, second + 1 - length) : second + 1] for of in parts_ for row in of]
            plain = [
                sum(given[name][0] for own, given in inside if own == scope and name in given) for scope, name in PLACES
            ]
            assert sums(store, length) == [*plain, 0]
            assert store.unread.window(length).any() or not any(plain)


@pytest.mark.parametrize("n", [1 << 52, MOST_COUNTED + 1])
def test_absurd_weights_do_not_wrap(n: int) -> None:
    store = made()
    cell = Cell(measures={NAMES[0]: (n, 1.0)})
    for second in range(50):
        store.advance(second, cells(second, (SCOPES[0], cell)), cells(second, (SCOPES[0], cell)))
    assert sums(store, 60)[0] == 50 * MOST_COUNTED
