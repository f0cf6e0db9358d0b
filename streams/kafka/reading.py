"""How a role reads its topics, and the state of each partition that it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.kafka.seek import Begin, Skip
from streams.slices import Slice, Source


class Answer(NamedTuple):
    """The last fetch response for a partition: its time in monotonic seconds, and its high watermark."""

    at: float
    highwater: int


class Fetched(NamedTuple):
    """Records of one Kafka batch, the reading position before and after it, and the number of the seek before it."""

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
    """The state of a telemetry partition in the consumer thread; other threads may read single attributes.

    Reading began at `start`, by the seek numbered `epoch`. Records up to `delivered` were delivered; `read` is further
    if only control batches follow.
    """

    start: int = 0
    epoch: int = 0
    answer: Answer | None = None
    delivered: int = 0
    read: int = 0


@dataclass(slots=True)
class Reading:
    """How the topics of one Faust app are read.

    `batched` topics are delivered as slices. `lookback`, `bounded`, `replayed` and `since` say where reading begins:
    see `streams.kafka.seek.Begin`. `committable` returns the offset of a batched partition that may be committed, or
    None. A broker delays a fetch response until it has `min_bytes` bytes, but at most for 50 ms. `on_start` is called
    with the offsets at which reading starts, before the first record is delivered; `on_revoke` when all partitions are
    revoked. `on_lost` is called in the consumer's thread when a broker has rejected the positions in `lost`. `skipped`
    lists the records that were not read. The locks `seeking`, in the consumer's thread, and `starting`, in the app's
    loop, are held during a seek.
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
    min_bytes: int = 1
    positions: dict[Source, Position] = field(default_factory=dict)
    lost: dict[Source, int] = field(default_factory=dict)
    skipped: list[Skip] = field(default_factory=list)
    seeking: asyncio.Lock = field(default_factory=asyncio.Lock)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    answered_at: float | None = None
    """Monotonic time of the last response of any broker to the consumer; None before it has started."""

    @property
    def begin(self) -> Begin:
        return Begin(self.lookback, self.bounded, self.replayed, self.since)
