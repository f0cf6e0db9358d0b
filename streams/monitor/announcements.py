"""When a partition's inability to judge is announced, and when its end (docs/promises.md, P3)."""

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
    """Which inabilities are to be announced: one record when it has lasted, one when it is over (docs/promises.md,
    P3)."""

    after: float = 15.0
    _open: dict[int, Inability] = field(default_factory=dict)

    def observe(self, partition: int, condition: ShardCondition, now: float) -> Literal["begun", "ended"] | None:
        """Note a shard's condition; tells when an announcement is due."""
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
        self._open.pop(partition, None)
