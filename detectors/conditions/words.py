"""The words of a condition, read one after the other; an error points at the word that does not fit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from detectors.errors import GrammarError

_WORD = re.compile(r"[<>=!≤≥]+|[^\s<>=!≤≥]+")


@dataclass(frozen=True, slots=True)
class Word:
    """`text` begins at character `start` of the condition."""

    text: str
    start: int


@dataclass(slots=True)
class WordReader:
    """The words of one condition; `at` is the number of those that have been read."""

    text: str
    words: list[Word] = field(init=False)
    at: int = 0

    def __post_init__(self) -> None:
        self.words = [Word(m.group(), m.start()) for m in _WORD.finditer(self.text)]

    def peek(self) -> str | None:
        """Return the next word without reading it; None at the end."""
        return self.words[self.at].text if self.at < len(self.words) else None

    def take(self, expected: str) -> Word:
        """Read the next word. Raises GrammarError at the end, with what was expected there."""
        if self.at == len(self.words):
            message = f"expected {expected}, but the condition ends here"
            raise GrammarError(message, self.text, len(self.text.rstrip()))
        self.at += 1
        return self.words[self.at - 1]

    def fail(self, message: str, word: Word, skip: int = 0) -> NoReturn:
        """Raise a GrammarError that points at a word, without its first `skip` characters."""
        raise GrammarError(message, self.text, word.start + skip, max(1, len(word.text) - skip))
