"""The state of a shard's triggers at an evaluation, so that a restart reads only the partials of the windows again.

Held conditions, proofs and fast alarms depend on minutes of partials, a window on one minute. With a checkpoint of the
former every few seconds, a restart has to read only the latter: for `for: 5m` over 60 s, a fifth. Windows are not in a
checkpoint: they are ten times as large, and the log of partials has them. A checkpoint of other triggers than today's
is not used.
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
"""Size of a record at most: Kafka takes 1 MB by default. A shard of more than about 5,000 triggers exceeds it."""

_TYPES = {"bool", "int8", "int64", "float64"}


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a shard's triggers after the evaluation at `time` (Unix seconds).

    `of` is the `identity` of the triggers. `stale` has the numbers of the triggers that fired on evidence that was too
    old to act upon. `memory` is what `detectors.triggers.evaluator.Evaluator.state` returns.
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
    """A digest of all that a checkpoint depends on: the triggers in their order, the telemetry topics, the interval of
    evaluations and the version of flipback."""
    text = repr((version("flipback"), tuple(specs), sorted(topics), evaluate_every))
    return hashlib.sha256(text.encode()).hexdigest()


def encode(checkpoint: Checkpoint) -> bytes:
    """The record of a checkpoint, deflated MessagePack. Raises CheckpointError if it is too large for Kafka."""
    memory = {name: _packed(array) for name, array in checkpoint.memory.items()}
    whole = _encoder.encode(_Record(checkpoint.of, checkpoint.time, checkpoint.stale, memory))
    # Level 1 suffices because most bytes are zeros; 40 KB take half a millisecond.
    packed = zlib.compress(whole, 1)
    if len(packed) > MOST_BYTES:
        raise CheckpointError(
            f"a checkpoint of {len(packed)} bytes, expected {MOST_BYTES} at most: a restart reads as far back as "
            "triggers look; more partials partitions make it smaller"
        )
    return packed


def decode(value: bytes) -> Checkpoint:
    """Read a record. Raises CheckpointError if it is not a checkpoint."""
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
        raise ValueError("it is truncated, or larger than 64 MiB")
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
