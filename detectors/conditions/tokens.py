"""The tokens of a condition, read one after the other; an error points at the wrong one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from detectors.errors import GrammarError

_TOKEN = re.compile(r"[<>=!≤≥]+|[^\s<>=!≤≥]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A word or an operator; `text` begins at character `start` of the condition."""

    text: str
    start: int


@dataclass(slots=True)
class TokenReader:
    """The tokens of one condition; `at` is how many have been read."""

    text: str
    tokens: list[Token] = field(init=False)
    at: int = 0

    def __post_init__(self) -> None:
        self.tokens = [Token(m.group(), m.start()) for m in _TOKEN.finditer(self.text)]

    def peek(self) -> str | None:
        """Return the text of the next token without reading it; None at the end."""
        return self.tokens[self.at].text if self.at < len(self.tokens) else None

    def take(self, expected: str) -> Token:
        """Read the next token. Raises GrammarError at the end, with what was expected there."""
        if self.at == len(self.tokens):
            message = f"expected {expected}, but the condition ends here"
            raise GrammarError(message, self.text, len(self.text.rstrip()))
        self.at += 1
        return self.tokens[self.at - 1]

    def fail(self, message: str, token: Token, skip: int = 0) -> NoReturn:
        """Raise a GrammarError that points at a token, without its first `skip` characters."""
        raise GrammarError(message, self.text, token.start + skip, max(1, len(token.text) - skip))
