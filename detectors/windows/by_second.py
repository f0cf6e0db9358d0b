"""Some counts of every scope second by second, over the last seconds: the sums of windows do not have them.

Read from the log of a window, a minute of one flag took 0.4 ms; with many flips checked at once, that was a third of
the time of a rollback. Here it takes 10 us, and 480 bytes a scope for a column of a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.arrays import Int, Ints
from detectors.state import BEFORE
from detectors.windows.second import Second


class BySecond:
    """The `columns` (of `detectors.cells`) of all `rows`, in the last `seconds` seconds that were added."""

    def __init__(self, seconds: int, columns: Sequence[int], rows: int) -> None:
        self._columns = {column: number for number, column in enumerate(columns)}
        # The seconds of a row are contiguous: few rows are read, and each is then one line of the cache.
        self._counts = np.zeros((len(columns), rows, seconds), dtype=np.int64)
        self._second = np.full(seconds, BEFORE, dtype=np.int64)
        self._rows: list[Ints] = [np.zeros(0, dtype=np.int64)] * seconds

    def put(self, second: Second) -> None:
        """Add a second, whose rows are those of this table; it overwrites the second that is `seconds` older."""
        place = second.second % len(self._second)
        self._second[place] = second.second
        self._counts[:, self._rows[place], place] = 0
        self._rows[place] = second.rows
        for column, number in self._columns.items():
            self._counts[number, second.rows, place] = second.columns[column]

    def read(self, rows: Int, column: int, since: int, until: int) -> Int:
        """Return a column of some rows in each second of [since, until), shape (seconds, r); 0 for seconds that were
        not added.

        Seconds older than the kept ones are 0 too. Raises KeyError for a column that is not kept.
        """
        wanted = np.arange(since, until)
        places = wanted % len(self._second)
        found: Int = self._counts[self._columns[column]][rows][:, places]
        found[:, self._second[places] != wanted] = 0
        return found.T

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, including pages that were never written."""
        return self._counts.nbytes + self._second.nbytes
