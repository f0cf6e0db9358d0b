"""One pass over a JSON text that says where the members of some objects stand, and what stands twice.

Names that stand twice in one object are taken as most readers take them, the last one counts, and noted: whether that
matters depends on where they stand. RFC 8259, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from json import JSONDecodeError, JSONDecoder
from typing import Any

from agent.backends.json_text import blank, no_constant


class Scan:
    """Decodes values of a text. Its methods raise JSONDecodeError, ValueError and RecursionError, as `json` does.

    `twice`: since it was last set to False a value had a name that stands twice in one object.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.twice = False
        self._decoder = JSONDecoder(object_pairs_hook=self._object, parse_constant=no_constant)

    def value(self, at: int) -> tuple[Any, int]:
        """The value at a place, and where it ends."""
        return self._decoder.raw_decode(self.text, at)

    def members(self, at: int, take: Callable[[str, int, int], int]) -> int:
        """Walk through the object at a place; returns where it ends.

        `take` is given each name, where its key begins and where its value does, and says where the value ends.
        """
        text = self.text
        at = blank(text, at + 1)
        if text[at : at + 1] == "}":
            return at + 1
        while True:
            if text[at : at + 1] != '"':
                raise JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
            name, key_end = self.value(at)
            colon = blank(text, key_end)
            if text[colon : colon + 1] != ":":
                raise JSONDecodeError("Expecting ':' delimiter", text, colon)
            end = blank(text, take(name, at, blank(text, colon + 1)))
            if text[end : end + 1] == "}":
                return end + 1
            if text[end : end + 1] != ",":
                raise JSONDecodeError("Expecting ',' delimiter", text, end)
            at = blank(text, end + 1)

    def end(self, at: int) -> None:
        """Nothing may stand behind the value that ends at a place."""
        at = blank(self.text, at)
        if at != len(self.text):
            raise JSONDecodeError("Extra data", self.text, at)

    def repeated(self, at: int) -> tuple[str, int] | None:
        """The first name that stands twice within the value at a place, and where it does for the second time."""
        found: list[tuple[str, int]] = []

        def walk(start: int) -> int:
            if self.text[start] == "[":
                # An array holds no names of its own: its elements are looked into one by one.
                place = blank(self.text, start + 1)
                while self.text[place] != "]":
                    place = blank(self.text, walk(place))
                    place = blank(self.text, place + 1) if self.text[place] == "," else place
                return place + 1
            if self.text[start] != "{":
                return self.value(start)[1]
            names: set[str] = set()

            def take(name: str, key_start: int, value_start: int) -> int:
                if name in names:
                    found.append((name, key_start))
                names.add(name)
                return walk(value_start)

            return self.members(start, take)

        try:
            walk(at)
        except RecursionError:
            # As deep as a decoder goes, and deeper than this walk does.
            return None
        return min(found, key=lambda one: one[1], default=None)

    def line(self, at: int) -> int:
        """The number of the line of a place, from 1."""
        return self.text.count("\n", 0, at) + 1

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self.twice = self.twice or len(found) != len(pairs)
        return found
