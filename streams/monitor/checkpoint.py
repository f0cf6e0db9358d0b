"""What a shard's triggers had gathered at an evaluation, so that a restart reads the windows again and no more.

What is held, proven or suspected rests on minutes of partials, a window on one. With a record of the former every few
seconds the latter is all that must be read again: of `for: 5m` over 60 s a fifth. Windows are not in it: they are ten
times as large, and the log has them. A record that does not fit the triggers of today is of no use.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.conditions.spec import TriggerSpec
from detectors.state import Arrays
from streams.errors import CheckpointError
from streams.unreadable import UNREADABLE

EVERY = 10
"""Seconds of event time between two checkpoints of a shard."""

MOST_BYTES = 900_000
"""Kafka takes records of 1 MB by default. A shard of more than some 5,000 triggers has no checkpoint."""

_TYPES = {"bool", "int8", "int64", "float64"}


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The triggers of a shard at the end of an evaluation, `time` in Unix seconds; `of` is that of `identity`.

    `stale` are the numbers of triggers that fired on what was too old to be acted upon.
    """

    of: str
    time: int
    stale: tuple[int, ...]
    memory: Arrays


class _Record(msgspec.Struct, array_like=True, frozen=True):
    of: str
    time: int
    stale: tuple[int, ...]
    memory: dict[str, _Packed]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


def identity(specs: Sequence[TriggerSpec], *, topics: Sequence[str], evaluate_every: int) -> str:
    """What a checkpoint must be of, to be that of these triggers: they in their order, and this flipback."""
    said = repr((version("flipback"), tuple(specs), sorted(topics), evaluate_every))
    return hashlib.sha256(said.encode()).hexdigest()


def encode(checkpoint: Checkpoint) -> bytes:
    """The record of a checkpoint. Raises CheckpointError where Kafka would not take it."""
    memory = {name: _packed(array) for name, array in checkpoint.memory.items()}
    whole = _encoder.encode(_Record(checkpoint.of, checkpoint.time, checkpoint.stale, memory))
    # Level 1: most are zeros, and 40 KB take half a millisecond.
    packed = zlib.compress(whole, 1)
    if len(packed) > MOST_BYTES:
        raise CheckpointError(
            f"a checkpoint of {len(packed)} bytes, expected {MOST_BYTES} at most: a restart reads all that triggers "
            "look back again; more partials partitions make it smaller"
        )
    return packed


def decode(value: bytes) -> Checkpoint:
    """Read a record. Raises CheckpointError for anything that is none."""
    try:
        record = _decoder.decode(_inflated(value))
        memory = {name: _unpacked(packed) for name, packed in record.memory.items()}
    except (*UNREADABLE, zlib.error) as error:
        raise CheckpointError(f"a checkpoint of {len(value)} bytes cannot be read: {error}") from error
    return Checkpoint(of=record.of, time=record.time, stale=record.stale, memory=memory)


def _inflated(value: bytes) -> bytes:
    inflating = zlib.decompressobj()
    whole = inflating.decompress(value, 64 << 20)
    if not inflating.eof:
        raise ValueError("it is cut off, or of more than 64 MiB")
    return whole


def _packed(array: NDArray[Any]) -> _Packed:
    return _Packed(array.dtype.name, array.shape, array.tobytes())


def _unpacked(packed: _Packed) -> NDArray[Any]:
    if packed.dtype not in _TYPES or min(packed.shape, default=0) < 0:
        raise ValueError(f"an array of {packed.dtype} and shape {packed.shape}")
    array = np.frombuffer(packed.data, dtype=packed.dtype)
    if array.size != prod(packed.shape):
        raise ValueError(f"{array.size} numbers for an array of shape {packed.shape}")
    return array.reshape(packed.shape)
