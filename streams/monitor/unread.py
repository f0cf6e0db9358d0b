"""Samples of which nobody can say whose they are: how many of what each topic received lately.

They could be anybody's, so they are missing in every service. They are counted by event time, in the second to which
the flush that tells of them moved its source's watermark. A window that ends at a time holds what was told up to that
time, and not what sources that are ahead have told since: so a log that is read again says the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from detectors.conditions.spec import LONGEST_SPAN

KEPT: Final = 2 * LONGEST_SPAN
"""Seconds that are kept behind the newest: the longest window, and as long for who catches up and hears of an hour
before it judges its first second. 170 KB a topic."""


class UnreadSamples(NamedTuple):
    """Samples of a topic: of the `received` ones, `rejected` cannot be told whose they are."""

    received: int
    rejected: int


class _Topic:
    """What was received and rejected in each second, a ring."""

    def __init__(self) -> None:
        # Written with every record: an item of numpy's arrays takes five times as long to set.
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
        told = np.frombuffer(self._second, dtype=np.int64)[places] == wanted
        received, rejected = (np.frombuffer(one, dtype=np.int64)[places] for one in (self._received, self._rejected))
        return UnreadSamples(int(received[told].sum()), int(rejected[told].sum()))


class UnreadLog:
    """What the source partitions said, by topic."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def add(self, topic: str, second: int, received: int, rejected: int) -> None:
        """A source of the topic received these samples up to `second`, its watermark in Unix seconds."""
        if second > 0 and (received or rejected):
            found = self._topics.get(topic)
            if found is None:
                found = self._topics[topic] = _Topic()
            found.add(second, received, rejected)

    def over(self, end: int, seconds: int) -> Mapping[str, UnreadSamples]:
        """Return what the topics received up to `end`, in a window of `seconds` (`LONGEST_SPAN` at most); only of
        those of which samples in it were rejected."""
        # Asked at every evaluation, and there are hardly ever any.
        topics = {name: topic for name, topic in self._topics.items() if topic.last_rejected > end - seconds}
        found = {name: topic.over(end, seconds) for name, topic in topics.items()}
        return {name: unread for name, unread in found.items() if unread.rejected}
