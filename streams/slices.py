"""The unit in which telemetry reaches stage 1: consecutive records of one source partition, undecoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_AHEAD: Final = 2.0
"""Seconds that a sample may be ahead of the timestamp of its record before it is taken to that timestamp."""


class Source(NamedTuple):
    """A partition of a telemetry topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Records of one source partition in offset order.

    `values`, `offsets` and `timestamps` (milliseconds, as Kafka stamps them; -1 where it has none) have one entry a
    record; a tombstone's value is None. `content_types` maps the index of a record that carries a content-type header
    to its value.
    """

    source: Source
    values: list[bytes | None]
    offsets: list[int]
    timestamps: list[int]
    content_types: dict[int, bytes]
