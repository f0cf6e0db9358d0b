"""When the inability of a partition to judge is announced, and when its end (docs/promises.md, P3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from streams.condition import ShardCondition


@dataclass(slots=True)
class Inability:
    """Since when a shard cannot act, and whether that has been announced."""

    since: float
    announced: bool = False


@dataclass(slots=True)
class Announcements:
    """Decides which inabilities are announced: once when one has lasted for `after` seconds, once when that one ends.

    An inability that is over sooner is not announced.
    """

    after: float = 15.0
    _open: dict[int, Inability] = field(default_factory=dict)

    def observe(self, partition: int, condition: ShardCondition, now: float) -> Literal["begun", "ended"] | None:
        """Take in a shard's condition at `now` (monotonic seconds); return what is to be announced, if anything."""
        state = self._open.get(partition)
        if condition.status == "live":
            self._open.pop(partition, None)
            return "ended" if state and state.announced else None
        if state is None:
            state = self._open[partition] = Inability(now)
        if state.announced or now - state.since < self.after:
            return None
        state.announced = True
        return "begun"

    def forget(self, partition: int) -> None:
        """Drop what is known of a partition that this process no longer judges."""
        self._open.pop(partition, None)
