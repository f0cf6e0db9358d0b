"""Seconds taken from a merge."""

from __future__ import annotations

from functools import cached_property

from detectors.cell_operations import by_second
from detectors.cells import Cells


class TakenSeconds:
    """Whole seconds as one block; it is cut into seconds only when one is asked for."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    @cached_property
    def _seconds(self) -> dict[int, Cells]:
        return dict(by_second(self.cells))

    def of(self, second: int) -> list[Cells]:
        """The block of a second; no block if the second is empty."""
        return [self._seconds[second]] if second in self._seconds else []
