"""Exceptions that no backend should raise, turned into errors that are reported to a person.

They are defects of flipback or of a flag system's client. If they were not caught, a failed command would look like one
that no executor has received.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agent.backends.contract import Outcome
from agent.errors import BackendError, Unforeseen
from agent.executor.result import ExecutionResult
from agent.logs.setup import log_event

LONGEST: Final = 500

log = logging.getLogger(__name__)


def words(where: str, error: Exception) -> str:
    """Describe the exception for people, in bounded length; log where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    log_event(log, "error.unforeseen", level=logging.ERROR, where=where, error=shown(error), at=at)
    return f"an error of flipback in {where}: {shown(error)}"[:LONGEST]


def shown(error: Exception) -> str:
    """Return the exception in bounded length, without the text that a codec could not read: it may hold secrets."""
    if isinstance(error, UnicodeDecodeError | UnicodeEncodeError):
        return f"{type(error).__name__}({error.encoding!r}, {error.reason!r})"
    return repr(error)[:LONGEST]


@contextmanager
def foreseen(backend: str) -> Iterator[None]:
    """Raise Unforeseen for an exception of this backend that is no BackendError."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise Unforeseen(words(f"backend {backend}", error)) from error


class Failures:
    """The backends whose last command was stopped by an unforeseen exception: the next one would be, too."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def note(self, backend: str, result: ExecutionResult) -> None:
        """Note the result of a command."""
        if result.unforeseen:
            self._found[backend] = result.detail[:LONGEST]
        elif result.outcome in (Outcome.APPLIED, Outcome.ALREADY):
            self._found.pop(backend, None)

    def problems(self) -> list[str]:
        """Return a sentence for each of them."""
        todo = "turn its flags off by hand until a command succeeds or this process is started again"
        return [f"backend {name}: its last command failed: {detail}; {todo}" for name, detail in self._found.items()]
