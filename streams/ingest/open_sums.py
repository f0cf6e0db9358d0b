"""The sums of the open seconds of one source partition, with a limited number of named instances in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from streams.ingest.block import Block, combine, renumber

MAX_INSTANCES: Final = 256
"""Named instances in a cell. If a cell has more, the first by name stay and the others count as the instance ""."""

_MOST_BLOCKS: Final = 8
_FEW_NAMES: Final = 4096


class OpenSums:
    """Blocks that are not closed; `names` are the names of instances by the number they have in the blocks."""

    def __init__(self) -> None:
        self.names = [""]
        self._numbers = {"": 0}
        self._blocks: list[Block] = []

    def number(self, name: str) -> int:
        """The number of an instance."""
        number = self._numbers.get(name)
        if number is None:
            self._numbers[name] = number = len(self.names)
            self.names.append(name)
        return number

    def append(self, block: Block) -> None:
        """Add a block whose instances have the numbers of `number`."""
        self._blocks.append(block)

    def add(self, block: Block, names: Sequence[str]) -> None:
        """Add a block whose instance numbers are indices of `names`."""
        number = np.zeros(len(names), dtype=np.int64)
        for used in np.unique(block.instance_id).tolist():
            number[used] = self.number(names[used])
        self._blocks.append(replace(block, instance_id=number[block.instance_id]))
        if len(self._blocks) > _MOST_BLOCKS:
            self._cap()

    def take(self, boundary: float) -> Block | None:
        """Remove and return the sums of the seconds before `boundary`; None if no second is open."""
        self._cap()
        if not self._blocks:
            return None
        block = self._blocks[0]
        done = block.second < boundary
        rest = block.select(~done)
        self._blocks = [rest] if len(rest) else []
        return block.select(done)

    def oldest(self) -> float:
        """The earliest second after `take`, infinite if there is none."""
        return int(self._blocks[0].second.min()) if self._blocks else math.inf

    def _cap(self) -> None:
        """Combine the blocks into one with at most MAX_INSTANCES named instances in each cell.

        The first by name stay, because that does not depend on the order of arrival: an instance that is dropped now
        would also be dropped at the end.
        """
        if not self._blocks:
            return
        block = combine(self._blocks)
        self._blocks = [block]
        named = block.instance_id != 0
        count = np.bincount(block.instance_cell[named], minlength=len(block))
        instance_id = block.instance_id
        for cell in np.flatnonzero(count > MAX_INSTANCES).tolist():
            rows = np.flatnonzero(named & (block.instance_cell == cell)).tolist()
            rows.sort(key=lambda row: self.names[block.instance_id[row]])
            if instance_id is block.instance_id:
                instance_id = instance_id.copy()
            instance_id[rows[MAX_INSTANCES:]] = 0
        if instance_id is not block.instance_id:
            self._blocks = [renumber(block, instance_id)]
        self._forget_names()

    def _forget_names(self) -> None:
        """Forget the names of instances that no open second has, once there are many."""
        live = np.unique(self._blocks[0].instance_id).tolist() if self._blocks else []
        if len(self.names) <= 4 * len(live) + _FEW_NAMES:
            return
        known, self.names, self._numbers = self.names, [""], {"": 0}
        number = np.zeros(len(known), dtype=np.int64)
        for used in live:
            number[used] = self.number(known[used])
        self._blocks = [replace(block, instance_id=number[block.instance_id]) for block in self._blocks]
