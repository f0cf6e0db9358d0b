"""How many samples arrived in the last minute and what was wrong with them: for people, not for verdicts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from streams.decoders.columns import Reject
from streams.decoders.faults import Fault, Faults
from streams.slices import Slice

WITHIN = 60.0
"""Seconds that the counts cover."""

MAX_REASON = 300
MAX_EXAMPLE = 200
"""Characters of a rejected record that are shown."""

MOST_FAULTS: Final = 5
"""Faults of a topic that are reported, the most frequent ones."""
_HARMLESS: Final = frozenset({"id", "kind"})
"""Fields that other producers often use for something else; nothing is lost if they are dropped."""


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a topic in the last minute: `received` in all, `rejected` and `no_outcome` among them.

    `faults` are what was wrong with samples, the most frequent first.
    """

    topic: str
    received: int
    rejected: int
    no_outcome: int
    faults: tuple[Fault, ...]

    @property
    def faulty(self) -> bool:
        """Whether there is a fault that a person should mend."""
        return any(fault.kind != "dropped" or fault.field not in _HARMLESS for fault in self.faults)


class Count(NamedTuple):
    """Samples `received`, and `rejected` and `no_outcome` among them.

    `reason` and `example` are those of the newest rejected record: why, and the beginning of its value.
    """

    received: int
    rejected: int
    reason: str
    example: str
    no_outcome: int = 0


NOTHING = Count(0, 0, "", "")


@dataclass(slots=True)
class _TopicCounts:
    seconds: deque[list[int]] = field(default_factory=deque)
    faults: deque[tuple[int, Faults]] = field(default_factory=deque)
    reason: str = ""
    example: str = ""

    def sums(self) -> tuple[int, int, int]:
        """Samples received and rejected, and requests without an outcome."""
        received, rejected, no_outcome = (sum(second[column] for second in self.seconds) for column in (1, 2, 3))
        return received, rejected, no_outcome


class TelemetryCounts:
    """Counts samples by topic and second of `monotonic`."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._topics: dict[str, _TopicCounts] = {}

    def add(
        self,
        slice_: Slice,
        counted: int,
        rejects: Sequence[Reject],
        faults: Sequence[Fault] = (),
        no_outcome: int = 0,
    ) -> None:
        """Add the counts of a slice: `counted` samples that are requests, of which `no_outcome` have no outcome."""
        topic = self._topics.setdefault(slice_.source.topic, _TopicCounts())
        now = int(self._monotonic())
        if not topic.seconds or topic.seconds[-1][0] != now:
            self._forget(topic)
            topic.seconds.append([now, 0, 0, 0])
        rejected = sum(reject.rows for reject in rejects)
        last = topic.seconds[-1]
        last[1] += counted + rejected
        last[2] += rejected
        last[3] += no_outcome
        if faults:
            if not topic.faults or topic.faults[-1][0] != now:
                topic.faults.append((now, Faults()))
            topic.faults[-1][1].add_all(faults)
        if rejects:
            value = slice_.values[slice_.offsets.index(rejects[-1].offset)] or b""
            topic.reason = rejects[-1].reason[:MAX_REASON]
            # `repr` of bytes, so that no control character of a sample reaches a terminal.
            topic.example = repr(value[:MAX_EXAMPLE])[2:-1][:MAX_EXAMPLE]

    def recent(self) -> dict[str, Count]:
        """The counts of every topic that has ever had samples."""
        found = {}
        for name, topic in self._topics.items():
            self._forget(topic)
            received, rejected, no_outcome = topic.sums()
            newest = (topic.reason, topic.example) if rejected else ("", "")
            found[name] = Count(received, rejected, *newest, no_outcome)
        return found

    def telemetry(self) -> list[Telemetry]:
        """The counts and most frequent faults of every topic that has ever had samples."""
        found = []
        for name, topic in self._topics.items():
            self._forget(topic)
            received, rejected, no_outcome = topic.sums()
            faults = Faults()
            for _, own in topic.faults:
                faults.add_all(own.entries())
            frequent = tuple(faults.entries()[:MOST_FAULTS])
            found.append(
                Telemetry(topic=name, received=received, rejected=rejected, no_outcome=no_outcome, faults=frequent)
            )
        return found

    def _forget(self, topic: _TopicCounts) -> None:
        oldest = self._monotonic() - WITHIN
        while topic.seconds and topic.seconds[0][0] < oldest:
            topic.seconds.popleft()
        while topic.faults and topic.faults[0][0] < oldest:
            topic.faults.popleft()
