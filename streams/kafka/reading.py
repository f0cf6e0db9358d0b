"""How a role reads its topics, and what is known of each partition that it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.kafka.seek import Begin, Skip
from streams.slices import Slice, Source


class Answer(NamedTuple):
    """The last fetch answer for a partition: when, in monotonic seconds, and the high watermark it carried."""

    at: float
    highwater: int


class Fetched(NamedTuple):
    """Records of one Kafka batch with the reading position before and after it, and the seek it belongs to."""

    values: list[bytes | None]
    offsets: list[int]
    timestamps: list[int]
    content_types: dict[int, bytes]
    before: int
    after: int
    epoch: int


@dataclass(slots=True)
class Delivery:
    """A slice as the agent receives it; `before`, `after` are reading positions, `epoch` numbers the seeks."""

    slice: Slice
    before: int
    after: int
    epoch: int


@dataclass(slots=True)
class Position:
    """What the consumer thread knows about a telemetry partition. Single writes, so safe to read from elsewhere.

    Reading began at `start`, by the seek numbered `epoch`; records up to `delivered` were handed on, and `read` is
    further where only control batches follow.
    """

    start: int = 0
    epoch: int = 0
    answer: Answer | None = None
    delivered: int = 0
    read: int = 0


@dataclass(slots=True)
class Reading:
    """How the topics of one Faust app are read.

    `batched` topics are delivered as slices. For `lookback`, `bounded`, `replayed` and `since`, which say where reading
    begins, see `streams.kafka.seek.Begin`. `committable` answers which offset of a batched partition may be committed,
    None for none. A broker keeps an answer back until it holds `gather` bytes, for 50 ms at most. `on_start` is given
    the offsets at which reading starts, before the first record is delivered; `on_revoke` is called when every
    partition is given up. `on_lost` is called in the consumer's thread when a broker has refused the positions in
    `lost`; `skipped` has what was not read. `seeking` and `starting` are held while the reading of partitions begins,
    in the consumer's thread and in the app's loop.
    """

    batched: frozenset[str] = frozenset()
    replayed: frozenset[str] = frozenset()
    bounded: frozenset[str] = frozenset()
    lookback: Mapping[str, float] = field(default_factory=dict)
    since: Callable[[list[Source]], Awaitable[Mapping[Source, float | None]]] | None = None
    committable: Callable[[Source], int | None] = lambda source: None
    on_start: Callable[[Mapping[Source, int]], Awaitable[None]] | None = None
    on_revoke: Callable[[], None] | None = None
    on_lost: Callable[[], None] | None = None
    gather: int = 1
    positions: dict[Source, Position] = field(default_factory=dict)
    lost: dict[Source, int] = field(default_factory=dict)
    skipped: list[Skip] = field(default_factory=list)
    seeking: asyncio.Lock = field(default_factory=asyncio.Lock)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    answered_at: float | None = None
    """Monotonic seconds of the last answer of any broker to the consumer; None before it has started."""

    @property
    def begin(self) -> Begin:
        return Begin(self.lookback, self.bounded, self.replayed, self.since)
