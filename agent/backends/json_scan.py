"""One pass over a JSON text that finds the positions of the members of objects, and duplicate names.

If an object has a name twice, the last one counts, as for most readers, and `Scan.twice` is set. The caller decides
whether a duplicate matters, by its position. RFC 8259, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from json import JSONDecodeError, JSONDecoder
from typing import Any

from agent.backends.json_text import blank, no_constant


class Scan:
    """Decodes values of a text. Its methods raise JSONDecodeError, ValueError and RecursionError, as `json` does.

    `twice` becomes True if a value has an object with a duplicate name; the caller sets it to False before a value.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.twice = False
        self._decoder = JSONDecoder(object_pairs_hook=self._object, parse_constant=no_constant)

    def value(self, at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where it ends."""
        return self._decoder.raw_decode(self.text, at)

    def members(self, at: int, take: Callable[[str, int, int], int]) -> int:
        """Walk through the object that begins at `at`; return where it ends.

        `take` is called with each name, where its key begins and where its value begins; it returns where the value
        ends.
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
        """Raise JSONDecodeError if anything but white space follows the value that ends at `at`."""
        at = blank(self.text, at)
        if at != len(self.text):
            raise JSONDecodeError("Extra data", self.text, at)

    def repeated(self, at: int) -> tuple[str, int] | None:
        """Return the first duplicate name within the value that begins at `at`, and where its second key begins."""
        found: list[tuple[str, int]] = []

        def walk(start: int) -> int:
            if self.text[start] == "[":
                # An array has no names of its own: walk through each element.
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
            # The value is nested less deeply than the decoder can go, but more deeply than this walk can.
            return None
        return min(found, key=lambda one: one[1], default=None)

    def line(self, at: int) -> int:
        """Return the number of the line of the position `at`, from 1."""
        return self.text.count("\n", 0, at) + 1

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self.twice = self.twice or len(found) != len(pairs)
        return found
