"""Counts the samples whose service could not be read, and all samples, that each topic received lately.

Such samples may be of any service, so they count as missing in every one. They are counted in the second of event time
that the watermark of their source had reached with the flush that reports them. A window that ends at a time holds what
was reported up to that watermark, and nothing that sources which are ahead have reported since. So a log that is read
again gives the same counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from detectors.conditions.spec import LONGEST_SPAN

KEPT: Final = 2 * LONGEST_SPAN
"""Seconds that are kept before the newest one: those of the longest window, and as many for a process that catches up,
which may read an hour of records before it judges its first second. 170 KB for each topic."""


class UnreadSamples(NamedTuple):
    """Samples of a topic: of `received` samples, the service of `rejected` ones could not be read."""

    received: int
    rejected: int


class _Topic:
    """Received and rejected samples of each second, in a ring."""

    def __init__(self) -> None:
        # They are written with every record, and to set an item of a numpy array takes five times as long.
        self._second, self._received, self._rejected = (array("q", bytes(8 * KEPT)) for _ in range(3))
        self.last_rejected = 0
        """The newest second with rejected samples."""

    def add(self, second: int, received: int, rejected: int) -> None:
        place = second % KEPT
        if self._second[place] < second:
            self._second[place] = second
            self._received[place] = self._rejected[place] = 0
        elif self._second[place] > second:
            return
        self._received[place] += received
        if rejected:
            self._rejected[place] += rejected
            self.last_rejected = max(self.last_rejected, second)

    def over(self, end: int, seconds: int) -> UnreadSamples:
        wanted = np.arange(end - seconds + 1, end + 1)
        places = wanted % KEPT
        present = np.frombuffer(self._second, dtype=np.int64)[places] == wanted
        received, rejected = (np.frombuffer(one, dtype=np.int64)[places] for one in (self._received, self._rejected))
        return UnreadSamples(int(received[present].sum()), int(rejected[present].sum()))


class UnreadLog:
    """What the source partitions reported, by topic."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def add(self, topic: str, second: int, received: int, rejected: int) -> None:
        """Add the samples that a source of the topic received up to `second`, its watermark in Unix seconds."""
        if second > 0 and (received or rejected):
            found = self._topics.get(topic)
            if found is None:
                found = self._topics[topic] = _Topic()
            found.add(second, received, rejected)

    def over(self, end: int, seconds: int) -> Mapping[str, UnreadSamples]:
        """Return the samples of each topic in the window of `seconds` (`LONGEST_SPAN` at most) that ends at `end`.

        Topics without a rejected sample in it are left out.
        """
        # This is called at every evaluation, and rejected samples are rare.
        topics = {name: topic for name, topic in self._topics.items() if topic.last_rejected > end - seconds}
        found = {name: topic.over(end, seconds) for name, topic in topics.items()}
        return {name: unread for name, unread in found.items() if unread.rejected}
