"""Names and values of somebody's data in messages, which stay short whatever the data is."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice

_MOST = 60
"""Characters of one name or value."""
_FEW = 5
"""So many names are listed; of more the nearest are."""
_NEAREST = 3
_COMPARED = 200
"""Names that are compared letter by letter: 6 ms. Of 20,000 flags only those that begin alike are."""


def shown(value: object) -> str:
    """The value as Python writes it, cut in the middle where it is long."""
    # What is cut first need not be written out: a value may have megabytes.
    text = repr(value[: 4 * _MOST]) if isinstance(value, str) else reprlib.repr(value)
    if isinstance(value, str) and len(value) <= _MOST:
        return text
    return text if len(text) <= _MOST else f"{text[: _MOST - 12]}...{text[-6:]}"


def listed(names: Collection[str]) -> str:
    """All names where they are few, else some and how many more there are."""
    few = ", ".join(shown(name) for name in islice(names, _FEW))
    more = len(names) - _FEW
    return f"{few or 'none'} and {more} more" if more > 0 else few or "none"


def some(sentences: Sequence[str]) -> str:
    """The first few of several findings, and how many more there are."""
    more = len(sentences) - _NEAREST
    return "; ".join(sentences[:_NEAREST]) + (f"; and {more} more like these" if more > 0 else "")


def nearest(name: str, names: Collection[str]) -> str:
    """The names that are most like `name`, and how many others there are; all of them where they are few."""
    if len(names) <= _FEW:
        return listed(sorted(names))
    found = _like(name, names, _NEAREST, cutoff=0.0)
    return f"{', '.join(map(shown, found))} and {len(names) - len(found)} more"


def meant(name: str, names: Iterable[str], most: int = 1) -> str | None:
    """The question whether one of at most `most` names was meant; None where none is like `name`."""
    found = _like(name, names, most, cutoff=0.6)
    return f"did you mean {' or '.join(shown(one)[1:-1] for one in found)}?" if found else None


def instead(name: str, names: Collection[str]) -> str:
    """What there is in the place of `name`: the names that are like it, else some of them."""
    there = f"there are {nearest(name, names)}" if names else "there is none at all"
    return meant(name, names, _NEAREST) or there


def _like(name: str, names: Iterable[str], most: int, cutoff: float) -> list[str]:
    candidates = list(_candidates(name, names))
    # `On` is like `on`; letter by letter it is half of it.
    same = [other for other in candidates if other.casefold() == name.casefold()]
    return same[:most] or get_close_matches(name[: 4 * _MOST], candidates, n=most, cutoff=cutoff)


def _candidates(name: str, names: Iterable[str]) -> Iterator[str]:
    names, start = list(names), name[:2].casefold()
    alike = names
    if len(names) > _COMPARED:
        alike = [other for other in names if other[:2].casefold() == start or name in other] or names
    return islice((other[: 4 * _MOST] for other in alike), _COMPARED)
