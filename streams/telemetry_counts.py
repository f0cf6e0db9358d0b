"""How much telemetry came in the last minute, and how much of it was rejected: for people, not for verdicts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.decode_columns import Reject
from streams.slices import Slice

WITHIN = 60.0
"""Seconds that are looked back."""

MAX_REASON = 300
MAX_EXAMPLE = 200
"""Characters of a rejected record that are shown."""


class Count(NamedTuple):
    """Samples that came, those that were rejected among them, why the newest was, and the beginning of its record."""

    received: int
    rejected: int
    reason: str
    example: str


NOTHING = Count(0, 0, "", "")


@dataclass(slots=True)
class _Topic:
    seconds: deque[list[int]] = field(default_factory=deque)
    reason: str = ""
    example: str = ""


class TelemetryCounts:
    """Counts by topic and second of `monotonic`."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._topics: dict[str, _Topic] = {}

    def add(self, slice_: Slice, counted: int, rejects: Sequence[Reject]) -> None:
        """A slice had `counted` good samples, and these rejects."""
        topic = self._topics.setdefault(slice_.source.topic, _Topic())
        now = int(self._monotonic())
        if not topic.seconds or topic.seconds[-1][0] != now:
            self._forget(topic)
            topic.seconds.append([now, 0, 0])
        rejected = sum(reject.rows for reject in rejects)
        last = topic.seconds[-1]
        last[1] += counted + rejected
        last[2] += rejected
        if rejects:
            value = slice_.values[slice_.offsets.index(rejects[-1].offset)] or b""
            topic.reason = rejects[-1].reason[:MAX_REASON]
            # As Python writes bytes: no control character of a sample comes to a terminal.
            topic.example = repr(value[:MAX_EXAMPLE])[2:-1][:MAX_EXAMPLE]

    def recent(self) -> dict[str, Count]:
        """The counts of every topic that there have ever been samples of."""
        found = {}
        for name, topic in self._topics.items():
            self._forget(topic)
            received, rejected = (sum(second[column] for second in topic.seconds) for column in (1, 2))
            told = (topic.reason, topic.example) if rejected else ("", "")
            found[name] = Count(received, rejected, *told)
        return found

    def _forget(self, topic: _Topic) -> None:
        oldest = self._monotonic() - WITHIN
        while topic.seconds and topic.seconds[0][0] < oldest:
            topic.seconds.popleft()
