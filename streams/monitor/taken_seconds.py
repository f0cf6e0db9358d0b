"""The cells of complete seconds, as they were taken from a merge."""

from __future__ import annotations

from functools import cached_property

from detectors.cell_operations import by_second
from detectors.cells import Cells


class TakenSeconds:
    """Cells of complete seconds as one block, which is cut into seconds only if one is asked for."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    @cached_property
    def _seconds(self) -> dict[int, Cells]:
        return dict(by_second(self.cells))

    def of(self, second: int) -> list[Cells]:
        """The block of a second in a list; an empty list if the second has no cells."""
        return [self._seconds[second]] if second in self._seconds else []
