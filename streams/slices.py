"""The unit in which telemetry reaches stage 1: consecutive records of one source partition, undecoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_AHEAD: Final = 2.0
"""Seconds by which a sample's time may be after its record's timestamp; a later time is replaced by that timestamp."""


class Source(NamedTuple):
    """A partition of a telemetry topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Records of one source partition in offset order.

    `values`, `offsets` and `timestamps` have one entry a record. Timestamps are Kafka's, in milliseconds, -1 if there
    is none; a tombstone's value is None. `content_types` maps the index of a record with a content-type header to the
    value of that header.
    """

    source: Source
    values: list[bytes | None]
    offsets: list[int]
    timestamps: list[int]
    content_types: dict[int, bytes]
