"""The columnar batch: many samples in one record, at about 15 bytes and 0.1 microseconds each.

Layout, version 1; docs/telemetry-formats.md has it in full for other languages. A MessagePack array of

    version, n, ts, profiles, profile, instances, instance, kinds, kind, latency_ms, weight, measures

`ts` and `latency_ms` are n little-endian doubles (latency NaN or the whole column empty: not timed). `profiles` lists
what samples have in common, `[environment or nil, service, {flag: variant}]`, `instances` names, `kinds` `[status,
outcome, cache]`, each nil where absent. `profile`, `instance` and `kind` are n indices into those lists, of 1, 2 or 4
bytes each as their length says; an empty column stands for all zeros, and an empty list with it for "none". `weight`
is n unsigned 32-bit counts of alike requests, or empty for all ones. `measures` lists `[name, rows, values]`, rows
being unsigned 32-bit and values doubles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from streams.sample import DEFAULT_ENVIRONMENT, Cache, Instance, Name, Outcome, Sample, Status

VERSION: Final = 1
CONTENT_TYPE: Final = "application/vnd.flipback.columnar+msgpack"


class Profile(msgspec.Struct, array_like=True, frozen=True):
    """What samples of one service and the same flags share; `flags` is an encoded map."""

    environment: Name | None
    service: Name
    flags: msgspec.Raw


class Kind(msgspec.Struct, array_like=True, frozen=True):
    """How requests ended and what the cache said."""

    status: Status | None
    outcome: Outcome | None
    cache: Cache | None


class MeasureColumn(msgspec.Struct, array_like=True, frozen=True):
    """A custom measure of some of the samples."""

    name: str
    rows: bytes
    values: bytes


class ColumnarBatch(msgspec.Struct, array_like=True, frozen=True):
    """The batch as it is encoded; see the module."""

    version: int
    n: int
    ts: bytes
    profiles: list[Profile]
    profile: bytes
    instances: list[Instance]
    instance: bytes
    kinds: list[Kind]
    kind: bytes
    latency_ms: bytes
    weight: bytes
    measures: list[MeasureColumn]


_encoder = msgspec.msgpack.Encoder(order="deterministic")


def encode(samples: Sequence[Sample]) -> bytes:
    """Encode samples as one record of the columnar format. The order of the samples is kept."""
    profiles: dict[Any, int] = {}
    instances: dict[str, int] = {}
    kinds: dict[Any, int] = {}
    profile, instance, kind = [], [], []
    for sample in samples:
        environment = None if sample.environment == DEFAULT_ENVIRONMENT else sample.environment
        flags = _encoder.encode(sample.flags or {})
        profile.append(profiles.setdefault((environment, sample.service, flags), len(profiles)))
        instance.append(instances.setdefault(sample.instance or "", len(instances)))
        kind.append(kinds.setdefault((sample.status, sample.outcome, sample.cache), len(kinds)))
    latency = [sample.latency_ms for sample in samples]
    weight = [1 if sample.n is None else sample.n for sample in samples]
    measures: dict[str, list[tuple[int, float]]] = {}
    for row, sample in enumerate(samples):
        for name, value in (sample.measures or {}).items():
            measures.setdefault(name, []).append((row, value))
    return _encoder.encode(
        ColumnarBatch(
            version=VERSION,
            n=len(samples),
            ts=np.array([sample.ts for sample in samples], dtype="<f8").tobytes(),
            profiles=[Profile(e, s, msgspec.Raw(flags)) for e, s, flags in profiles],
            profile=_indices(profile),
            instances=list(instances),
            instance=_indices(instance),
            kinds=[Kind(*entry) for entry in kinds],
            kind=_indices(kind),
            latency_ms=b"" if latency.count(None) == len(latency) else np.array(latency, dtype="<f8").tobytes(),
            weight=b"" if weight.count(1) == len(weight) else np.array(weight, dtype="<u4").tobytes(),
            measures=[
                MeasureColumn(
                    name,
                    np.array([row for row, _ in rows], dtype="<u4").tobytes(),
                    np.array([value for _, value in rows], dtype="<f8").tobytes(),
                )
                for name, rows in sorted(measures.items())
            ],
        )
    )


def _indices(values: list[int]) -> bytes:
    most = max(values, default=0)
    if most == 0:
        return b""
    return np.array(values, dtype="<u1" if most < 1 << 8 else "<u2" if most < 1 << 16 else "<u4").tobytes()
