"""The record itself: a MessagePack array, its version first, and older versions read as today's."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from detectors.cells import COLUMNS, COUNTS
from streams.partials.packing import Column, packed, unpacked
from streams.slices import Source

VERSION = 2
NARROW: Final = {1: 9}
"""Older versions that are still read, and how many columns of counts each has: the first of COUNTS. The rest are 0."""


class Partial(msgspec.Struct, array_like=True, frozen=True):
    """What the owner of a source partition sends to one partials partition.

    `partitions` is the number of the topic's partitions, so that a monitor knows which sources to wait for.
    `watermark` is in Unix seconds; None while it is unknown or more records of the same flush follow. `sent_at` is the
    owner's wall clock. The last record of a flush counts samples since the flush before: `overflow` found no room
    within `max_scopes`; of the `received` ones, `rejected` are counted nowhere, because their service cannot be read.
    """

    version: int
    topic: str
    partition: int
    partitions: int
    owner: str
    sent_at: float
    watermark: float | None
    caught_up: bool
    overflow: int
    scopes: list[tuple[str, str, str, str]]
    instances: list[str]
    measures: list[str]
    columns: list[Column]
    received: int = 0
    rejected: int = 0

    @property
    def source(self) -> Source:
        return Source(self.topic, self.partition)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Partial)


def encode(partial: Partial) -> bytes:
    return _encoder.encode(partial)


def decode_record(raw: bytes) -> Partial:
    """A record of any version that is still read, as one of today; its columns are not unpacked.

    Raises ValueError for a version that is not read, or what msgspec raises for bytes that are no record.
    """
    partial = _decoder.decode(raw)
    if partial.version in NARROW:
        return _widened(partial, NARROW[partial.version])
    if partial.version != VERSION:
        raise ValueError(f"it has version {partial.version}, expected {VERSION}: update the older side")
    return partial


def _widened(partial: Partial, narrow: int) -> Partial:
    """The partial as of today, with zeros in the columns of counts that it lacks."""
    if len(partial.columns) != len(COLUMNS):
        return msgspec.structs.replace(partial, version=VERSION)
    columns = list(partial.columns)
    for at, column in enumerate(COLUMNS):
        if column.width is None:
            continue
        (values, (length,)) = unpacked([columns[at]])
        if length % narrow:
            raise ValueError(f"{column.name} has {length} numbers, expected multiples of {narrow}")
        wide = np.zeros((length // narrow, len(COUNTS)), dtype=np.int64)
        wide[:, :narrow] = values.reshape(-1, narrow)
        columns[at] = packed(wide)
    return msgspec.structs.replace(partial, version=VERSION, columns=columns)
