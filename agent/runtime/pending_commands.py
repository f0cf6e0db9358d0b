"""Commands that are being written: the only records that the monitor awaits, and that nothing replaces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from streams.kafka.outbox import Stall


class PendingCommands:
    """The commands that no broker has acknowledged yet. `monotonic` returns seconds that never go back."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._numbers = count()
        self._since: dict[int, float] = {}
        self._error = ""

    @contextmanager
    def command(self) -> Iterator[None]:
        """Count a command as pending while the block lasts."""
        number = next(self._numbers)
        self._since[number] = self._monotonic()
        try:
            yield
        finally:
            del self._since[number]
            if not self._since:
                self._error = ""

    def failed(self, error: Exception) -> None:
        """Record the error of an attempt to write a command; the caller tries again."""
        self._error = repr(error)

    def stall(self, after: float) -> Stall | None:
        """The stall of the commands if the oldest has waited for `after` seconds, else None."""
        seconds = self._monotonic() - min(self._since.values(), default=self._monotonic())
        return Stall(seconds, len(self._since), self._error) if self._since and seconds >= after else None
