"""What detectors refuse.

DetectorError
├── GrammarError   a condition is not written as the grammar wants it
├── SpecError      the parts of a trigger do not fit together
└── StateError     what is given back to a detector is not what it once gave
"""

from __future__ import annotations


class DetectorError(Exception):
    """Root of all errors of this package."""


class GrammarError(DetectorError):
    """A condition could not be read; `position` and `length` delimit the wrong word in `text`, in characters.

    `str()` is the message alone, `pointed` adds the condition and a line of carets beneath the word.
    """

    def __init__(self, message: str, text: str, position: int, length: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.text = text
        self.position = position
        self.length = length

    @property
    def pointed(self) -> str:
        """Three lines: the message, the condition, the carets."""
        # A line break or a tab inside the condition would tear the carets from their word.
        line = "".join(c if c.isprintable() else " " for c in self.text)
        return f"{self.message}\n  {line}\n  {' ' * self.position}{'^' * max(self.length, 1)}"


class SpecError(DetectorError):
    """A trigger lacks what its condition needs, or has what contradicts it."""


class StateError(DetectorError):
    """A detector's state is of another detector, another number of rows or another configuration."""
