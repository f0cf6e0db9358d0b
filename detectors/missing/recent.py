"""How much is missing lately, for evidence that is gathered second by second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detectors.arrays import Int


def recent(over: Callable[[int], Int | None], display: int) -> Int | None:
    """Return the count of the last `display` seconds, or that of the newest second times `display` if it is more.

    `over` takes a window's seconds and returns counts (n,), None where there are none.
    """
    found, newest = over(display), over(1)
    # A second that lacks too much is no evidence, however well the others of its minute were read.
    if found is None or newest is None:
        return found if newest is None else newest * display
    most: Int = np.maximum(found, newest * display)
    return most
