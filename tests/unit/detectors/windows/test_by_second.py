"""Counts second by second: those that were added, in the kept seconds, and none of older seconds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cells import ERRORS, LATE, REQUESTS, Scope
from detectors.windows.by_second import BySecond
from detectors.windows.store import Want, WindowStore
from tests.support.cells import Cell, cells

SCOPES = [Scope("production", name) for name in ("a", "b", "c")]
KEPT = 5
BEGIN = 1_700_000_000


@given(
    st.lists(
        st.dictionaries(st.sampled_from(SCOPES), st.tuples(st.integers(0, 1 << 40), st.integers(0, 9))), max_size=20
    )
)
def test_it_tells_what_came_in_each_of_the_last_seconds(series: list[Mapping[Scope, tuple[int, int]]]) -> None:
    store = WindowStore([Want(scope, KEPT) for scope in SCOPES], max_scopes=3, display=KEPT)
    rows = np.array([store.row(scope, KEPT) for scope in SCOPES])
    for number, second in enumerate(series):
        at = BEGIN + number
        blocks = [(scope, Cell({"requests": n, "late": late})) for scope, (n, late) in second.items()]
        # A second without cells is not added.
        store.advance(at, *([cells(at, *blocks)] if blocks else []))
        last = series[max(0, number + 1 - KEPT) : number + 1]
        since = at + 1 - len(last)
        for column, part in ((REQUESTS, 0), (LATE, 1)):
            expected = [[one.get(scope, (0, 0))[part] for scope in SCOPES] for one in last]
            assert store.by_second.read(rows, column, since, at + 1).tolist() == expected


def test_what_is_longer_ago_than_is_kept_and_what_has_not_come_is_0() -> None:
    kept = BySecond(KEPT, (REQUESTS,), 1)
    assert kept.read(np.array([0]), REQUESTS, BEGIN - 3, BEGIN + 3).tolist() == [[0]] * 6
    assert kept.read(np.array([], dtype=np.int64), REQUESTS, BEGIN, BEGIN + 2).shape == (2, 0)
    with pytest.raises(KeyError):
        kept.read(np.array([0]), ERRORS, BEGIN, BEGIN + 1)
