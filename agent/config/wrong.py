"""`WRONG` stands in place of a value that could not be decoded, so that the rest of the file is still checked.

A value that is WRONG has been reported already: a check that needs it reports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

WRONG: Any = object()

_T = TypeVar("_T")


def decoded_items(items: Iterable[_T]) -> Iterator[tuple[int, _T]]:
    """Yield the items of a list that were decoded, each with its index; nothing if the list itself is WRONG."""
    return ((index, item) for index, item in enumerate(items if items is not WRONG else ()) if item is not WRONG)


def is_wrong(value: Any) -> bool:
    """Return whether a value, or an item of a list, is WRONG."""
    return value is WRONG or (isinstance(value, list) and any(item is WRONG for item in value))
