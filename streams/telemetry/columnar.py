"""The columnar batch: many samples in one record.

A sample takes about 20 bytes, and decodes 20 times faster than as a JSON record. docs/telemetry-formats.md describes
the format for other languages. A batch is a MessagePack array of

    version, n, ts, profiles, profile, instances, instance, kinds, kind, latency_ms, timed, weight, measures

- `ts` and `latency_ms`: n little-endian doubles each. `latency_ms` is empty if no sample has a latency.
- `timed`: n bytes, 1 if the sample has a latency, else 0. Empty if all have one, or none.
- `profiles`: a list of `[environment or nil, service, {flag: variant}]`; `profile`: n indices into it.
- `instances`: a list of names; `instance`: n indices into it.
- `kinds`: a list of `[status, outcome, cache]`, each nil if absent; `kind`: n indices into it.
- `weight`: n unsigned 32-bit counts of equal requests. Empty if all are 1.
- `measures`: a list of `[name, rows, values]`; rows are unsigned 32-bit, values are doubles.

Indices have 1, 2 or 4 bytes, which follows from the length of their column. An empty column of indices stands for n
zeros, or, if its list is empty too, for no value. Version 2 appends the ids of requests:

    id_rows, ids, started

- `id_rows`: unsigned 32-bit rows of the samples with an id; `ids`: as many strings.
- `started`: as many bytes, 1 if the sample is the start of a request. Empty if none is.

A batch without ids is written as version 1, which older readers accept. Readers cache lists by their bytes, so a writer
should sort its lists, as `encode` does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from streams.telemetry.sample import DEFAULT_ENVIRONMENT, Sample

VERSION: Final = 2
PLAIN_VERSION: Final = 1
"""The version of a batch in which no sample has an id."""
CONTENT_TYPE: Final = "application/vnd.flipback.columnar+msgpack"

Entry = TypeVar("Entry", bound=Hashable)


class Profile(msgspec.Struct, array_like=True, frozen=True):
    """What samples of one service and the same flags share; `flags` is an encoded map."""

    environment: str | None
    service: str
    flags: msgspec.Raw


class Kind(msgspec.Struct, array_like=True, frozen=True):
    """How requests ended, and the result of their cache lookup."""

    status: int | None
    outcome: str | None
    cache: str | None


class MeasureColumn(msgspec.Struct, array_like=True, frozen=True):
    """A custom measure of some of the samples."""

    name: str
    rows: bytes
    values: bytes


class ColumnarBatch(msgspec.Struct, array_like=True, frozen=True):
    """The batch as it is encoded; see the module for the fields."""

    version: int
    n: int
    ts: bytes
    profiles: list[Profile]
    profile: bytes
    instances: list[str]
    instance: bytes
    kinds: list[Kind]
    kind: bytes
    latency_ms: bytes
    timed: bytes
    weight: bytes
    measures: list[MeasureColumn]
    id_rows: bytes = b""
    ids: list[str] = msgspec.field(default_factory=list)
    started: bytes = b""


_PLAIN_ELEMENTS: Final = len(ColumnarBatch.__struct_fields__) - 3
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def encode(samples: Sequence[Sample]) -> bytes:
    """Encode samples as one record of the columnar format. The order of the samples is kept.

    Raises ValueError for a started sample without an id, which the format cannot hold.
    """
    profiles, profile = _listed(
        [
            (
                None if sample.environment == DEFAULT_ENVIRONMENT else sample.environment,
                sample.service,
                _encoder.encode(sample.flags or {}),
            )
            for sample in samples
        ]
    )
    instances, instance = _listed([sample.instance or "" for sample in samples])
    kinds, kind = _listed([(sample.status, sample.outcome, sample.cache) for sample in samples])
    timed = np.array([sample.latency_ms is not None for sample in samples], dtype=bool)
    latency = np.array([sample.latency_ms or 0.0 for sample in samples], dtype="<f8")
    weight = [1 if sample.n is None else sample.n for sample in samples]
    measures: dict[str, list[tuple[int, float]]] = {}
    for row, sample in enumerate(samples):
        for name, value in (sample.measures or {}).items():
            measures.setdefault(name, []).append((row, value))
    identified = [row for row, sample in enumerate(samples) if sample.id is not None]
    started = [sample.kind == "started" for sample in samples]
    if sum(started) > sum(started[row] for row in identified):
        raise ValueError("a started sample needs an id")
    marks = bytes(started[row] for row in identified)
    batch = msgspec.structs.astuple(
        ColumnarBatch(
            version=VERSION if identified else PLAIN_VERSION,
            n=len(samples),
            ts=np.array([sample.ts for sample in samples], dtype="<f8").tobytes(),
            profiles=[Profile(e, s, msgspec.Raw(flags)) for e, s, flags in profiles],
            profile=profile,
            instances=instances,
            instance=instance,
            kinds=[Kind(*entry) for entry in kinds],
            kind=kind,
            latency_ms=latency.tobytes() if timed.any() else b"",
            timed=timed.tobytes() if timed.any() and not timed.all() else b"",
            weight=b"" if weight.count(1) == len(weight) else np.array(weight, dtype="<u4").tobytes(),
            measures=[
                MeasureColumn(
                    name,
                    np.array([row for row, _ in rows], dtype="<u4").tobytes(),
                    np.array([value for _, value in rows], dtype="<f8").tobytes(),
                )
                for name, rows in sorted(measures.items())
            ],
            id_rows=np.array(identified, dtype="<u4").tobytes(),
            ids=[samples[row].id or "" for row in identified],
            started=marks if any(marks) else b"",
        )
    )
    return _encoder.encode(batch if identified else batch[:_PLAIN_ELEMENTS])


def _listed(entries: list[Entry]) -> tuple[list[Entry], bytes]:
    """The distinct entries, sorted, and the index of every entry among them."""
    distinct = sorted(set(entries), key=_order)
    number = {entry: index for index, entry in enumerate(distinct)}
    if len(distinct) <= 1:
        return distinct, b""
    width = "<u1" if len(distinct) <= 1 << 8 else "<u2" if len(distinct) <= 1 << 16 else "<u4"
    return distinct, np.array([number[entry] for entry in entries], dtype=width).tobytes()


def _order(entry: Any) -> Any:
    # None cannot be compared with text.
    return tuple((part is not None, part) for part in entry) if isinstance(entry, tuple) else entry
