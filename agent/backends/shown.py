"""Quotes names and values of other people's data in messages, so that a message stays short whatever the data is."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice

_MOST = 60
"""Characters of one name or value."""
_FEW = 5
"""How many names are listed in full; of more names, only the most similar are."""
_NEAREST = 3
_COMPARED = 200
"""At most so many names are compared letter by letter, which takes 6 ms; of more, only those that begin alike."""


def shown(value: object) -> str:
    """Return the value as Python writes it, shortened in the middle if it is long."""
    # Cut before repr(): a value may have megabytes.
    text = repr(value[: 4 * _MOST]) if isinstance(value, str) else reprlib.repr(value)
    # Quotation marks add two characters; a control character is written as up to ten.
    return text if len(text) <= _MOST + 2 * isinstance(value, str) else f"{text[: _MOST - 12]}...{text[-6:]}"


def listed(names: Collection[str]) -> str:
    """List all names if they are few, else some of them and how many more there are."""
    few = ", ".join(shown(name) for name in islice(names, _FEW))
    more = len(names) - _FEW
    return f"{few or 'none'} and {more} more" if more > 0 else few or "none"


def some(sentences: Sequence[str]) -> str:
    """Join the first few of several findings, and say how many more there are."""
    more = len(sentences) - _NEAREST
    return "; ".join(sentences[:_NEAREST]) + (f"; and {more} more like these" if more > 0 else "")


def nearest(name: str, names: Collection[str]) -> str:
    """List the names most similar to `name`, and how many others there are; all names if they are few."""
    if len(names) <= _FEW:
        return listed(sorted(names))
    found = _like(name, names, _NEAREST, cutoff=0.0)
    return f"{', '.join(map(shown, found))} and {len(names) - len(found)} more"


def meant(name: str, names: Iterable[str], most: int = 1) -> str | None:
    """Ask whether one of at most `most` names was meant; None if none is similar to `name`."""
    found = _like(name, names, most, cutoff=0.6)
    return f"did you mean {' or '.join(shown(one)[1:-1] for one in found)}?" if found else None


def instead(name: str, names: Collection[str]) -> str:
    """Say what exists instead of `name`: ask for the similar names, else list some of the names."""
    there = f"there are {nearest(name, names)}" if names else "there is none at all"
    return meant(name, names, _NEAREST) or there


def _like(name: str, names: Iterable[str], most: int, cutoff: float) -> list[str]:
    candidates = list(_candidates(name, names))
    # `On` is the same as `on`, although only half of its letters are equal.
    same = [other for other in candidates if other.casefold() == name.casefold()]
    return same[:most] or get_close_matches(name[: 4 * _MOST], candidates, n=most, cutoff=cutoff)


def _candidates(name: str, names: Iterable[str]) -> Iterator[str]:
    names, start = list(names), name[:2].casefold()
    alike = names
    if len(names) > _COMPARED:
        alike = [other for other in names if other[:2].casefold() == start or name in other] or names
    return islice((other[: 4 * _MOST] for other in alike), _COMPARED)
