"""The errors that detectors raise.

DetectorError
├── GrammarError   a condition does not follow the grammar
├── SpecError      the parts of a trigger contradict each other
└── StateError     a restored state does not fit the detector
"""

from __future__ import annotations


class DetectorError(Exception):
    """Root of all errors of this package."""


class GrammarError(DetectorError):
    """A condition could not be read; `position` and `length` delimit the wrong token in `text`, in characters.

    `str()` is the message alone, `pointed` adds the condition and a line of carets beneath the token.
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
        # A line break or a tab inside the condition would move the carets away from their token.
        line = "".join(c if c.isprintable() else " " for c in self.text)
        return f"{self.message}\n  {line}\n  {' ' * self.position}{'^' * max(self.length, 1)}"


class SpecError(DetectorError):
    """A trigger lacks what its condition needs, or contradicts it."""


class StateError(DetectorError):
    """A state comes from another detector, another number of rows or another configuration."""
