"""The contract of sequential detectors, and the checks of a state that is restored.

A detector judges n rows at once, one row per trigger, each on its own. Time is whole seconds and never goes back;
several updates of one second add up. The size of its state is fixed when it is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.errors import StateError

Arrays = dict[str, NDArray[Any]]
"""Arrays by name: plain numbers that a file or a topic can hold. The last axis, if there is one, is the rows."""

BEFORE = -(1 << 62)
"""Earlier than any second; subtracting it from a second does not overflow. A detector without updates has it as its
last second."""


class Detector(Protocol):
    """What all detectors share. `update` is not here, because its arguments differ from detector to detector."""

    def state(self) -> Arrays:
        """Return copies of all its state."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned. Raises StateError, and changes nothing, if it does not fit."""


def checked_state(state: Mapping[str, NDArray[Any]], own: Arrays) -> Arrays:
    """Return copies of the arrays of `state`, which must have the names, shapes and types of those in `own`.

    Raises StateError that names what differs.
    """
    if state.keys() != own.keys():
        raise StateError(f"a state with {sorted(own)} is wanted, {sorted(state)} was given")
    for name, array in own.items():
        given = state[name]
        if (given.shape, given.dtype) != (array.shape, array.dtype):
            raise StateError(
                f"state {name!r}: {array.dtype} of shape {array.shape} is wanted, {given.dtype} of shape "
                f"{given.shape} was given; rows or configuration differ"
            )
    return {name: np.array(state[name]) for name in own}


def prefixed(**parts: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays of all parts in one dict, each under `PART.NAME`; `part` is the inverse.

    >>> import numpy as np
    >>> both = prefixed(left={"a": np.array(1)}, right={"a": np.array(2)})
    >>> sorted(both)
    ['left.a', 'right.a']
    >>> part(both, "right")
    {'a': array(2)}
    """
    return {f"{name}.{own}": array for name, arrays in parts.items() for own, array in arrays.items()}


def part(arrays: Mapping[str, NDArray[Any]], name: str) -> Arrays:
    """Return the arrays that `prefixed` stored under the name of a part."""
    return {own.removeprefix(f"{name}."): array for own, array in arrays.items() if own.startswith(f"{name}.")}


def checked_second(second: int, last: int) -> bool:
    """Return whether `second` is later than `last`. Raises ValueError if it is earlier."""
    if second < last:
        raise ValueError(f"second {second} is earlier than the last one, {last}")
    return second > last
