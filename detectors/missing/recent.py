"""The recent number of missing samples, for evidence that accumulates second by second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detectors.arrays import Int


def recent(over: Callable[[int], Int | None], display: int) -> Int | None:
    """Return the count of the last `display` seconds, or that of the newest second times `display` if that is more.

    `over` takes a window's seconds and returns counts (n,), None if there are none.
    """
    found, newest = over(display), over(1)
    # A second that lacks too much is no evidence, even if the rest of its minute is complete.
    if found is None or newest is None:
        return found if newest is None else newest * display
    most: Int = np.maximum(found, newest * display)
    return most
