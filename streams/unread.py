"""Samples of which nobody can say whose they are: how many of what each source partition received lately.

They could be anybody's, so they are missing in every service. They are counted by event time, in the second to which
the flush that tells of them moved its source's watermark: so a log that is read again says the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from streams.slices import Source

KEPT: Final = 600
"""Seconds behind a source's watermark that are kept; of a longer window the last ten minutes tell."""


class Unread(NamedTuple):
    """Samples of a source partition: of the `received` ones, `rejected` cannot be told whose they are."""

    received: int
    rejected: int


class UnreadLog:
    """What the source partitions said, each in the order of its log."""

    def __init__(self) -> None:
        self._said: dict[Source, deque[tuple[int, int, int]]] = {}
        self._last_rejected: dict[Source, int] = {}

    def add(self, source: Source, second: int, received: int, rejected: int) -> None:
        """A source received these samples up to `second`, its watermark; one it had before does not come later."""
        if not received and not rejected:
            return
        said = self._said.setdefault(source, deque())
        if said and second <= said[-1][0]:
            second, before, unread = said.pop()
            received, rejected = received + before, rejected + unread
        said.append((second, received, rejected))
        if rejected:
            self._last_rejected[source] = second
        while said[0][0] < second - KEPT:
            said.popleft()

    def since(self, second: int) -> Mapping[Source, Unread]:
        """What all sources of the topics with rejected samples after `second` received since."""
        # Asked at every evaluation, and there are hardly ever any.
        topics = {source.topic for source, last in self._last_rejected.items() if last > second}
        found = {}
        for source in [source for source in self._said if source.topic in topics] if topics else ():
            recent = [(received, rejected) for at, received, rejected in self._said[source] if at > second]
            found[source] = Unread(sum(received for received, _ in recent), sum(rejected for _, rejected in recent))
        return found
