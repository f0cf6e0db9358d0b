"""Faults of samples: what is wrong, and how many samples have it.

A fault has a fixed text, so that thousands of samples with the same fault are one line, and one example.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

FaultKind = Literal["rejected", "dropped", "missing"]
"""rejected: the sample does not count as a request; dropped: it counts, without this field; missing: the sample lacks
the field and has one with a similar name."""

MOST: Final = 40
"""Different faults that are counted separately; further ones count as `OTHER`."""
LONGEST_EXAMPLE: Final = 120


class Why(NamedTuple):
    """What is wrong with a field, as a fixed text `said`; `field` is "record" if the whole record is wrong."""

    field: str
    said: str
    example: str = ""

    def __str__(self) -> str:
        given = f", not {self.example}" if self.example else ""
        return f"{self.said}{given}" if self.field == "record" else f"{self.field}: {self.said}{given}"


class Fault(NamedTuple):
    """How many `samples` have a fault, and one example of it."""

    kind: FaultKind
    field: str
    said: str
    samples: int
    example: str


OTHER: Final = Why("record", "has yet another fault")


class Faults:
    """Counts faults by kind, field and text; the first example is kept."""

    def __init__(self) -> None:
        self._found: dict[tuple[FaultKind, str, str], list[int]] = {}
        self._examples: dict[tuple[FaultKind, str, str], str] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, kind: FaultKind, why: Why, samples: int = 1) -> None:
        """Count samples that have a fault."""
        key = kind, why.field, why.said
        found = self._found.get(key)
        if found is None and len(self._found) >= MOST:
            key = kind, OTHER.field, OTHER.said
            found = self._found.get(key)
        if found is None:
            self._found[key] = [samples]
            self._examples[key] = why.example
        else:
            found[0] += samples

    def add_all(self, faults: Iterable[Fault]) -> None:
        """Add the counts of other faults."""
        for kind, field, said, samples, example in faults:
            self.add(kind, Why(field, said, example), samples)

    def entries(self) -> list[Fault]:
        """The faults, the most frequent first."""
        entries = [Fault(*key, count, self._examples[key]) for key, (count,) in self._found.items()]
        return sorted(entries, key=lambda fault: -fault.samples)


def shown(value: object) -> str:
    """A value as text for people, at most LONGEST_EXAMPLE characters long."""
    text = repr(value[:LONGEST_EXAMPLE]) if isinstance(value, str | bytes) else _plain(value)
    return text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 3] + "..."


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        # A JSON number may have thousands of digits, and Python does not print so many.
        return repr(value) if isinstance(value, float) or abs(value) < 10**20 else "a number of more than 20 digits"
    return "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else type(value).__name__
