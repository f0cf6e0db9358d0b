"""Counts of values that could not be read, by window: see `detectors.windows.unreadable`.

Nearly always there are none, and a column in each window for every flag would cost as much as the counts of all
requests. So only counts that occur are kept: a second without unreadable values costs a look at the names of its
measures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from detectors.arrays import Int
from detectors.cells import Cells, Scope
from detectors.windows.second import MOST_COUNTED
from detectors.windows.slots import present
from detectors.windows.unreadable import PREFIX


class PlaceCounts(NamedTuple):
    """`counts` (k,) of the places `at` (k,), each given once, in one second."""

    second: int
    at: Int
    counts: Int


class FieldSums:
    """The sums over the last `seconds` seconds."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._log: deque[PlaceCounts] = deque()
        self._sums = np.zeros(0, dtype=np.int64)

    def any(self) -> bool:
        """Return whether any value could not be read."""
        return bool(self._log)

    def read(self, places: Int) -> Int:
        """Return the counts at places (p,) that `UnreadSums.place` gave; 0 for -1."""
        known = (places >= 0) & (places < len(self._sums))
        found = np.zeros(len(places), dtype=np.int64)
        found[known] = self._sums[places[known]]
        return found

    def since(self, place: int, second: int) -> int:
        """Return the count at a place from a second on. It is slow: for rare use."""
        return sum(int(entry.counts[entry.at == place].sum()) for entry in self._log if entry.second >= second)

    def move(self, end: int, entry: PlaceCounts | None, places: int) -> None:
        """Add the entry of a second with `places` places, and drop seconds earlier than `end - seconds`."""
        while self._log and self._log[0].second < end - self._seconds:
            old = self._log.popleft()
            self._sums[old.at] -= old.counts
        if entry is not None:
            if len(self._sums) < places:
                self._sums = np.concatenate((self._sums, np.zeros(places - len(self._sums), dtype=np.int64)))
            self._sums[entry.at] += entry.counts
            self._log.append(entry)


class UnreadSums:
    """Counts unreadable values of the scopes and fields that have a place."""

    def __init__(self) -> None:
        self._places: dict[tuple[Scope, str], int] = {}
        self._windows: dict[int, FieldSums] = {}
        self._coming: dict[int, list[tuple[Int, Int]]] = {}

    def place(self, scope: Scope, name: str | None) -> int:
        """Return the place of a scope and the measure `name`, -1 for None. Call it before the first second."""
        return -1 if name is None else self._places.setdefault((scope, name), len(self._places))

    def window(self, seconds: int) -> FieldSums:
        """Return the window of a length. Call it before the first second."""
        return self._windows.setdefault(seconds, FieldSums(seconds))

    def note(self, blocks: Iterable[Cells]) -> None:
        """Keep the counts of the seconds of blocks until `advance` reaches those seconds."""
        for cells in blocks:
            # The table of a block names all measures that its sender knows; hardly any occurs in it.
            named = present(cells.measure_id, len(cells.measures)).tolist()
            wanted = [number for number in named if cells.measures[number].startswith(PREFIX)]
            if wanted:
                self._note(cells, np.isin(cells.measure_id, wanted))

    def advance(self, second: int, blocks: Iterable[Cells] = ()) -> None:
        """Move every window to end with this second; `blocks` may hold counts of it."""
        self.note(blocks)
        entry = None
        if self._coming:
            entry = self._entry(second, self._coming.pop(second, []))
        for window in self._windows.values():
            window.move(second + 1, entry, len(self._places))

    def _note(self, cells: Cells, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        """Keep the chosen measure entries of a block, by second and place."""
        of, name, counts = cells.measure_cell[kept], cells.measure_id[kept], cells.measure_count[kept]
        # One look-up per scope and field, not one per second of them.
        pairs, which = np.unique(cells.scope[of] * len(cells.measures) + name, return_inverse=True)
        number, field = np.divmod(pairs, max(len(cells.measures), 1))
        named = zip(number.tolist(), field.tolist(), strict=True)
        places = [self._places.get((cells.scopes[s], cells.measures[f]), -1) for s, f in named]
        at = np.array(places, dtype=np.int64)[which]
        seconds = cells.second[of]
        for second in np.unique(seconds[at >= 0]).tolist():
            own = (at >= 0) & (seconds == second)
            self._coming.setdefault(second, []).append((at[own], counts[own]))

    @staticmethod
    def _entry(second: int, parts: list[tuple[Int, Int]]) -> PlaceCounts | None:
        """Sum what was kept of a second by place; None if nothing was."""
        if not parts:
            return None
        at, which = np.unique(np.concatenate([own for own, _ in parts]), return_inverse=True)
        counts = np.zeros(len(at), dtype=np.int64)
        np.add.at(counts, which, np.clip(np.concatenate([own for _, own in parts]), 0, MOST_COUNTED))
        return PlaceCounts(second, at, np.minimum(counts, MOST_COUNTED))
