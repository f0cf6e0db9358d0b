"""What every sequential detector promises, and how its state is taken back.

A detector judges n rows at once, one row a trigger; rows do not touch each other. Time is given in whole seconds and
never goes back; what is told of one second in several parts adds up. Its memory is fixed when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.errors import StateError

Arrays = dict[str, NDArray[Any]]
"""Arrays by name: plain numbers that a file or a topic can hold. The last axis is the rows', where there is one."""

BEFORE = -(1 << 62)
"""Earlier than any second, with room to subtract it from one; the second of a detector that has seen none."""


class Detector(Protocol):
    """What a detector is beside its `update`, whose arguments are its own."""

    def state(self) -> Arrays:
        """Copies of all that it remembers."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave. Raises StateError, and changes nothing, when that does not fit."""


def checked_state(state: Mapping[str, NDArray[Any]], own: Arrays) -> Arrays:
    """Return copies of the arrays of `state`, each of the name, shape and type that `own` has.

    Raises StateError naming the first that is missing, unknown or different.
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
    """The arrays of several parts in one, each under the name of its part and its own; `part` takes them out again.

    >>> import numpy as np
    >>> both = prefixed(left={"a": np.array(1)}, right={"a": np.array(2)})
    >>> sorted(both)
    ['left.a', 'right.a']
    >>> part(both, "right")
    {'a': array(2)}
    """
    return {f"{name}.{own}": array for name, arrays in parts.items() for own, array in arrays.items()}


def part(arrays: Mapping[str, NDArray[Any]], name: str) -> Arrays:
    """What `prefixed` has put under the name of a part."""
    return {own.removeprefix(f"{name}."): array for own, array in arrays.items() if own.startswith(f"{name}.")}


def checked_second(second: int, last: int) -> bool:
    """Is `second` new? Raises ValueError when it is earlier than the last one."""
    if second < last:
        raise ValueError(f"second {second} is earlier than the last one, {last}")
    return second > last
