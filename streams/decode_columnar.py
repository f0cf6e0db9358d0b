"""Columnar batches to columns: tables are numbered entry by entry, samples by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.cells import Int
from streams.columnar import VERSION, ColumnarBatch
from streams.decode_columns import NO_COLUMNS, NO_MEASURES, Columns, Float, Rejects, joined
from streams.intern import INVALID, Interner, Table
from streams.sample import MAX_LATENCY_MS, MAX_MEASURE, MAX_N, MAX_RECORD_BYTES, MAX_TIME, MIN_TIME, Kinds

_decode: Final = msgspec.msgpack.Decoder(ColumnarBatch).decode
_kinds: Final = Kinds()
_WIDTHS: Final = {1: "<u1", 2: "<u2", 4: "<u4"}


class _Damaged(ValueError):
    """The parts of a batch do not fit together."""


def decode_columnar(
    first: int, values: Sequence[bytes | None], interner: Interner, table: Table, rejects: Rejects
) -> Columns:
    """Decode consecutive records of a slice, of which the first is number `first` there."""
    parts = []
    for index, value in enumerate(values, first):
        if value is None:
            rejects.add(index, "empty", "the record has no value")
        elif len(value) > MAX_RECORD_BYTES:
            rejects.add(index, "oversized", f"{len(value)} bytes, at most {MAX_RECORD_BYTES} are read")
        else:
            try:
                batch = _decode(value)
                if batch.version != VERSION:
                    raise _Damaged(f"version {batch.version}, expected {VERSION}")
                parts.append(_columns(index, batch, interner, table, rejects))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                rejects.add(index, "malformed", str(error))
    return joined(parts) if parts else NO_COLUMNS


def _columns(index: int, batch: ColumnarBatch, interner: Interner, table: Table, rejects: Rejects) -> Columns:
    n = batch.n
    if n < 0 or len(batch.ts) != 8 * n:
        raise _Damaged(f"ts has {len(batch.ts)} bytes, expected 8 for each of {n} samples")
    ts = np.frombuffer(batch.ts, dtype="<f8")
    profile_keys = [(p.environment, p.service, bytes(p.flags)) for p in batch.profiles]
    profile = _looked_up("profile", n, batch.profile, [table.msgpack[key] for key in profile_keys])
    instance = _looked_up("instance", n, batch.instance, [table.instances[name] for name in batch.instances or [""]])
    kinds = [_kinds[kind.status, kind.outcome, kind.cache] for kind in batch.kinds] or [_kinds[None, None, None]]
    kind = _looked_up("kind", n, batch.kind, kinds)
    latency = _doubles("latency_ms", n, batch.latency_ms)
    weight = _weights(n, batch.weight)
    rows, numbers, measured = _measures(n, batch, interner)

    # Comparisons with nan are false: a time that is none fails, a latency that is none must not.
    good = (ts >= MIN_TIME) & (ts <= MAX_TIME) & (weight >= 1) & (weight <= MAX_N)
    good &= (profile != INVALID) & (instance != INVALID)
    good &= np.isnan(latency) | ((latency >= 0) & (latency <= MAX_LATENCY_MS))
    bad_measures = ~(np.abs(measured) <= MAX_MEASURE) | (numbers == INVALID)
    good[rows[bad_measures]] = False
    if not good.all():
        bad = np.flatnonzero(~good)
        rejects.add(index, "invalid", _reason(batch, int(bad[0]), table, profile_keys), int(bad[0]), len(bad))
    columns = Columns(
        record=np.full(n, index, dtype=np.int64),
        ts=ts,
        profile=profile,
        instance=instance,
        kind=kind,
        n=weight,
        latency_ms=latency,
        measure_row=rows,
        measure_id=numbers,
        measure_value=measured,
    )
    return columns.where(good)


def _looked_up(name: str, n: int, raw: bytes, numbers: Sequence[int]) -> Int:
    """The numbers that a column of indices stands for."""
    if not numbers:
        if n:
            raise _Damaged(f"no {name} is listed, but there are samples")
        return np.zeros(0, dtype=np.int64)
    if not raw:
        return np.full(n, numbers[0], dtype=np.int64)
    width = _WIDTHS.get(len(raw) // n if n else 0)
    if width is None or len(raw) % n:
        raise _Damaged(f"{name} has {len(raw)} bytes, expected 1, 2 or 4 for each of {n} samples")
    indices = np.frombuffer(raw, dtype=width)
    if int(indices.max()) >= len(numbers):
        raise _Damaged(f"{name} has index {int(indices.max())}, but {len(numbers)} are listed")
    result: Int = np.array(numbers, dtype=np.int64)[indices]
    return result


def _doubles(name: str, n: int, raw: bytes) -> Float:
    if not raw:
        return np.full(n, np.nan)
    if len(raw) != 8 * n:
        raise _Damaged(f"{name} has {len(raw)} bytes, expected none, or 8 for each of {n} samples")
    return np.frombuffer(raw, dtype="<f8")


def _weights(n: int, raw: bytes) -> Int:
    if not raw:
        return np.ones(n, dtype=np.int64)
    if len(raw) != 4 * n:
        raise _Damaged(f"weight has {len(raw)} bytes, expected none, or 4 for each of {n} samples")
    return np.frombuffer(raw, dtype="<u4").astype(np.int64)


def _measures(n: int, batch: ColumnarBatch, interner: Interner) -> tuple[Int, Int, Float]:
    """Row, number and value of every measure, by row."""
    if not batch.measures:
        return NO_MEASURES
    names = [column.name for column in batch.measures]
    if len(set(names)) < len(names):
        raise _Damaged("a measure is listed twice")
    rows, numbers, values = [], [], []
    for column in batch.measures:
        row = np.frombuffer(column.rows, dtype="<u4").astype(np.int64)
        if len(column.values) != 8 * len(row):
            raise _Damaged(f"measure {column.name!r} has {len(row)} rows and {len(column.values)} bytes of values")
        if len(row) and (int(row.max()) >= n or len(np.unique(row)) < len(row)):
            raise _Damaged(f"measure {column.name!r} names a row twice, or one past the {n} samples")
        rows.append(row)
        numbers.append(np.full(len(row), interner.measures[column.name], dtype=np.int64))
        values.append(np.frombuffer(column.values, dtype="<f8"))
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    return row[order], np.concatenate(numbers)[order], np.concatenate(values)[order]


def _reason(batch: ColumnarBatch, row: int, table: Table, keys: Sequence[tuple[str | None, str, bytes]]) -> str:
    """What is wrong with a sample, the first thing that is."""
    n = batch.n
    ts = float(np.frombuffer(batch.ts, dtype="<f8")[row])
    if not MIN_TIME <= ts <= MAX_TIME:
        return f"ts {ts} is not between {MIN_TIME} and {MAX_TIME}"
    weight = int(_weights(n, batch.weight)[row])
    if not 1 <= weight <= MAX_N:
        return f"n {weight} is not between 1 and {MAX_N}"
    latency = float(_doubles("latency_ms", n, batch.latency_ms)[row])
    if not np.isnan(latency) and not 0 <= latency <= MAX_LATENCY_MS:
        return f"latency_ms {latency} is not between 0 and {MAX_LATENCY_MS:.0f}"
    key = keys[int(_looked_up("profile", n, batch.profile, range(len(keys)))[row])]
    if table.msgpack[key] == INVALID:
        return table.msgpack.explain(key)
    names = batch.instances or [""]
    name = names[int(_looked_up("instance", n, batch.instance, range(len(names)))[row])]
    if table.instances[name] == INVALID:
        return table.instances.explain(name)
    return f"a measure is not a number between {-MAX_MEASURE:.0f} and {MAX_MEASURE:.0f}, or its name is not fit"
