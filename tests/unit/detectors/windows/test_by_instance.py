"""Counts by instance do not depend on how the entries are found."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cells import COUNTS, REQUESTS
from detectors.windows import by_instance as module
from detectors.windows.by_instance import by_instance
from tests.unit.detectors.missing.test_majority import second

SECONDS = st.lists(
    st.dictionaries(st.tuples(st.integers(0, 300), st.integers(0, 3)), st.integers(0, 1_000_000), max_size=12),
    max_size=5,
)


@pytest.fixture(params=[0, 1 << 40], ids=["by bisection", "among all"], scope="module")
def few(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@given(SECONDS, st.lists(st.integers(0, 300), unique=True, max_size=5))
def test_every_entry_of_the_slots_is_counted_once(
    few: int, seconds: list[dict[tuple[int, int], int]], slots: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW_ENTRIES", few)
        found = by_instance([second(n, votes) for n, votes in enumerate(seconds)], np.array(slots, dtype=np.int64))
    wanted: Counter[tuple[int, int]] = Counter()
    for votes in seconds:
        for (slot, instance), requests in votes.items():
            if slot in slots:
                wanted[slots.index(slot), instance] += requests
    entries = sorted({(slots.index(s), i) for votes in seconds for s, i in votes if s in slots})
    assert list(zip(found.row.tolist(), found.instance.tolist(), strict=True)) == entries
    assert found.counts.shape == (len(entries), len(COUNTS))
    assert found.counts[:, REQUESTS].tolist() == [wanted[entry] for entry in entries]
    assert found.counts.sum() == sum(wanted.values())
    assert found.starts.tolist() == [sum(row < n for row, _ in entries) for n in range(len(slots) + 1)]
