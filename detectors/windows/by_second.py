"""Some counts of every scope second by second, over the last seconds: the one question that sums do not answer.

Read from the log of a window, a minute of one flag took 0.4 ms; with many flips looked after at once that was a third
of what happened while a flag was turned back. Here it takes 10 us, and 480 bytes a scope for a column of a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.arrays import Int, Ints
from detectors.state import BEFORE
from detectors.windows.second import Second


class BySecond:
    """The `columns` (of `detectors.cells`) of all `rows`, in the last `seconds` seconds that were put in."""

    def __init__(self, seconds: int, columns: Sequence[int], rows: int) -> None:
        self._columns = {column: number for number, column in enumerate(columns)}
        # The seconds of a row lie side by side: those of few rows are asked for, and each is a line of the cache.
        self._counts = np.zeros((len(columns), rows, seconds), dtype=np.int64)
        self._second = np.full(seconds, BEFORE, dtype=np.int64)
        self._rows: list[Ints] = [np.zeros(0, dtype=np.int64)] * seconds

    def put(self, second: Second) -> None:
        """Take in a second whose rows are ours; it takes the place of the one `seconds` before."""
        place = second.second % len(self._second)
        self._second[place] = second.second
        self._counts[:, self._rows[place], place] = 0
        self._rows[place] = second.rows
        for column, number in self._columns.items():
            self._counts[number, second.rows, place] = second.columns[column]

    def read(self, rows: Int, column: int, since: int, until: int) -> Int:
        """Return a column of some rows in each second of [since, until), shape (seconds, r); 0 where none was put in.

        Raises KeyError for a column that is not kept. What is longer ago than is kept is 0 too.
        """
        wanted = np.arange(since, until)
        places = wanted % len(self._second)
        found: Int = self._counts[self._columns[column]][rows][:, places]
        found[:, self._second[places] != wanted] = 0
        return found.T

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, those of pages never written included."""
        return self._counts.nbytes + self._second.nbytes
