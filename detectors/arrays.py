"""Array types that every file of this package uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
Ints = NDArray[np.integer[Any]]
"""Integers of any width: a packed column has the smallest type that holds it."""
Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
