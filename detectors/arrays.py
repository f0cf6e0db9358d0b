"""Types of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
Ints = NDArray[np.integer[Any]]
"""Whole numbers of any width, as columns that are packed small have."""
Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
