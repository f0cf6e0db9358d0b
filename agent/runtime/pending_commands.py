"""Commands on their way: the one kind of record that judging waits for, and which nothing replaces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from streams.kafka.outbox import Stall


class PendingCommands:
    """The commands that no broker has acknowledged yet. `monotonic` gives seconds that never go back."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._numbers = count()
        self._since: dict[int, float] = {}
        self._error = ""

    @contextmanager
    def command(self) -> Iterator[None]:
        """A command is under way as long as the block lasts."""
        number = next(self._numbers)
        self._since[number] = self._monotonic()
        try:
            yield
        finally:
            del self._since[number]
            if not self._since:
                self._error = ""

    def failed(self, error: Exception) -> None:
        """An attempt to write one failed; it is tried again."""
        self._error = repr(error)

    def stall(self, after: float) -> Stall | None:
        """That the oldest command has waited for `after` seconds, if so."""
        seconds = self._monotonic() - min(self._since.values(), default=self._monotonic())
        return Stall(seconds, len(self._since), self._error) if self._since and seconds >= after else None
