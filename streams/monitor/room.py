"""How many cells may wait for a source that holds up all others, and which are given up if there are more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.cell_operations import nbytes
from detectors.cells import Cells

MOST_BYTES = 64 << 20
"""Bytes of cells that may wait: 200 scopes of four instances for five minutes. If there are more, the oldest seconds
are given up and stay unknown."""

_FREE = 0.25
"""Share of the room that is free after seconds were given up, so that this does not happen again at once."""


def kept_from(blocks: Sequence[Cells], most_bytes: int) -> int | None:
    """The first second to keep so that a quarter of the room is free; None if it is free already.

    The newest second is kept, however large it is.
    """
    second = np.concatenate([block.second for block in blocks])
    sizes = [nbytes(block) / max(len(block), 1) for block in blocks]
    order = np.argsort(second)
    size = np.repeat(sizes, [len(block) for block in blocks])[order].cumsum()
    over = float(size[-1]) - (1 - _FREE) * most_bytes if len(size) else 0.0
    if over <= 0:
        return None
    last = int(second[order[int(np.searchsorted(size, over))]])
    return min(last + 1, int(second.max()))
