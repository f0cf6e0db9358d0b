"""Columnar batches to columns: lists are numbered entry by entry, or found as a whole, samples by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta, Raw
from numpy.typing import NDArray

from detectors.cells import Int
from streams.columnar import PLAIN_VERSION, VERSION, Kind, MeasureColumn, Profile
from streams.decode_columns import MISIDENTIFIED, NO_IDS, NO_MEASURES, Columns, Float, Rejects, Text, joined
from streams.intern import INVALID, Interner, ProfileKey, Table
from streams.sample import (
    LOOKUPS,
    MAX_ID,
    MAX_LATENCY_MS,
    MAX_MEASURE,
    MAX_N,
    MAX_RECORD_BYTES,
    MAX_STATUS,
    MAX_TIME,
    MIN_TIME,
    OUTCOMES,
    STARTED_KIND,
    Kinds,
)

_LONGEST_LIST: Final = 1 << 16
"""Entries of a list at most: a record of 4 MiB could hold a million, and they become Python objects."""
_MOST_IDS: Final = MAX_RECORD_BYTES // 14
"""The same for ids, of which each has a sample: 8 bytes of time, 4 of the row, 2 of itself."""
_UNTIMED_BAD: Final = -1.0
"""Stands for a latency that is no number; nan is for none."""


class _Batch(msgspec.Struct, array_like=True, frozen=True):
    """`columnar.ColumnarBatch` with lists left encoded: their bytes are looked up, which spares reading them again."""

    version: int
    n: int
    ts: bytes
    profiles: Raw
    profile: bytes
    instances: Raw
    instance: bytes
    kinds: Raw
    kind: bytes
    latency_ms: bytes
    timed: bytes
    weight: bytes
    measures: Annotated[list[MeasureColumn], Meta(max_length=_LONGEST_LIST)]
    id_rows: bytes = b""
    ids: Annotated[list[str], Meta(max_length=_MOST_IDS)] = msgspec.field(default_factory=list)
    started: bytes = b""


_batch: Final = msgspec.msgpack.Decoder(_Batch).decode
_header: Final = msgspec.msgpack.Decoder(list[Raw]).decode
_profiles: Final = msgspec.msgpack.Decoder(Annotated[list[Profile], Meta(max_length=_LONGEST_LIST)]).decode
_instances: Final = msgspec.msgpack.Decoder(Annotated[list[str], Meta(max_length=_LONGEST_LIST)]).decode
_kinds: Final = msgspec.msgpack.Decoder(Annotated[list[Kind], Meta(max_length=_LONGEST_LIST)]).decode
_kind_numbers: Final = Kinds()
_WIDTHS: Final = {1: "<u1", 2: "<u2", 4: "<u4"}
_FAULTS: Final = (msgspec.MsgspecError, ValueError, RecursionError)


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
                parts.append(_columns(index, _read(value), interner, table))
            except _FAULTS as error:
                rejects.add(index, "malformed", str(error))
    columns = joined(parts)
    good = _good(columns)
    if good.all():
        return columns
    for index in np.unique(columns.record[~good]).tolist():
        start, stop = np.searchsorted(columns.record, (index, index + 1))
        bad = np.flatnonzero(~good[start:stop])
        reason = _reason(columns, int(start), int(bad[0]), values[index - first] or b"", table)
        rejects.add(index, "invalid", reason, int(bad[0]), len(bad))
    return columns.where(good)


def _read(value: bytes) -> _Batch:
    try:
        batch = _batch(value)
    except msgspec.ValidationError:
        # Of another version anything may be different but the place of its number.
        version = msgspec.msgpack.decode(_header(value)[0], type=int)
        _check_version(version)
        raise
    _check_version(batch.version)
    if batch.n < 0 or len(batch.ts) != 8 * batch.n:
        raise _Damaged(f"ts has {len(batch.ts)} bytes, expected 8 for each of {batch.n} samples")
    return batch


def _check_version(version: int) -> None:
    if version not in (PLAIN_VERSION, VERSION):
        raise _Damaged(f"version {version}, expected {PLAIN_VERSION} or {VERSION}") from None


def _columns(index: int, batch: _Batch, interner: Interner, table: Table) -> Columns:
    """The samples as they are: what may not be counted has a number INVALID or a value out of its bounds."""
    n = batch.n
    rows, numbers, measured = _measures(n, batch.measures, interner)
    id_row, ids = _ids(n, batch)
    kind = _looked_up("kind", n, batch.kind, table.listed(b"k", bytes(batch.kinds), _numbers_of_kinds))
    if batch.started:
        starts = id_row[np.frombuffer(batch.started, dtype=np.uint8) != 0]
        kind[starts] = np.where(kind[starts] == INVALID, INVALID, STARTED_KIND)
    return Columns(
        record=np.full(n, index, dtype=np.int64),
        ts=np.frombuffer(batch.ts, dtype="<f8"),
        profile=_looked_up("profile", n, batch.profile, table.listed(b"p", bytes(batch.profiles), _profile_numbers)),
        instance=_looked_up(
            "instance", n, batch.instance, table.listed(b"i", bytes(batch.instances), _instance_numbers)
        ),
        kind=kind,
        n=_weights(n, batch.weight),
        latency_ms=_latencies(n, batch.latency_ms, batch.timed),
        measure_row=rows,
        measure_id=numbers,
        measure_value=measured,
        id_row=id_row,
        ids=ids,
    )


def _profile_keys(raw: bytes) -> list[ProfileKey]:
    return [(profile.environment, profile.service, bytes(profile.flags)) for profile in _profiles(raw)]


def _profile_numbers(raw: bytes, table: Table) -> list[int]:
    return [table.msgpack[key] for key in _profile_keys(raw)]


def _instance_numbers(raw: bytes, table: Table) -> list[int]:
    return [table.instances[name] for name in _instances(raw) or [""]]


def _numbers_of_kinds(raw: bytes, table: Table) -> list[int]:
    return [_kind_number(kind) for kind in _kinds(raw)] or [_kind_numbers[None, None, None, None]]


def _kind_number(kind: Kind) -> int:
    known = kind.outcome is None or kind.outcome in OUTCOMES
    if not known or kind.cache not in LOOKUPS or not 0 <= (kind.status or 0) <= MAX_STATUS:
        return INVALID
    return _kind_numbers[kind.status, kind.outcome, kind.cache, None]


def _looked_up(name: str, n: int, raw: bytes, numbers: Int) -> Int:
    """The numbers that a column of indices stands for."""
    if not raw:
        if not len(numbers) and n:
            raise _Damaged(f"no {name} is listed, but there are samples")
        return np.full(n, numbers[0] if n else 0, dtype=np.int64)
    width = _WIDTHS.get(len(raw) // n if n else 0)
    if width is None or len(raw) % n:
        raise _Damaged(f"{name} has {len(raw)} bytes, expected 1, 2 or 4 for each of {n} samples")
    indices = np.frombuffer(raw, dtype=width)
    try:
        return numbers.take(indices)
    except IndexError:
        raise _Damaged(f"{name} has index {int(indices.max())}, but {len(numbers)} are listed") from None


def _latencies(n: int, raw: bytes, timed: bytes) -> Float:
    if not raw and not timed:
        return np.full(n, np.nan)
    if len(raw) != 8 * n:
        raise _Damaged(f"latency_ms has {len(raw)} bytes, expected none, or 8 for each of {n} samples")
    latency = np.frombuffer(raw, dtype="<f8")
    strange = np.isnan(latency)
    if strange.any():
        latency = np.where(strange, _UNTIMED_BAD, latency)
    if not timed:
        return latency
    if len(timed) != n:
        raise _Damaged(f"timed has {len(timed)} bytes, expected none, or 1 for each of {n} samples")
    return np.where(np.frombuffer(timed, dtype=np.uint8) != 0, latency, np.nan)


def _weights(n: int, raw: bytes) -> Int:
    if not raw:
        return np.ones(n, dtype=np.int64)
    if len(raw) != 4 * n:
        raise _Damaged(f"weight has {len(raw)} bytes, expected none, or 4 for each of {n} samples")
    return np.frombuffer(raw, dtype="<u4").astype(np.int64)


def _ids(n: int, batch: _Batch) -> tuple[Int, Text]:
    """Row and id of every sample that has one."""
    if not batch.ids and not batch.id_rows and not batch.started:
        return NO_IDS
    if len(batch.id_rows) != 4 * len(batch.ids) or len(batch.started) not in (0, len(batch.ids)):
        sizes = f"{len(batch.id_rows)} bytes of rows and {len(batch.started)} of started"
        raise _Damaged(f"{len(batch.ids)} ids have {sizes}, expected 4 and 1 for each")
    rows = np.frombuffer(batch.id_rows, dtype="<u4").astype(np.int64)
    if int(rows[-1]) >= n or not (rows[1:] > rows[:-1]).all():
        raise _Damaged(f"rows of ids do not ascend, or pass the {n} samples")
    ids = np.empty(len(rows), dtype=object)
    ids[:] = batch.ids
    return rows, ids


def _measures(n: int, columns: Sequence[MeasureColumn], interner: Interner) -> tuple[Int, Int, Float]:
    """Row, number and value of every measure, by row."""
    if not columns:
        return NO_MEASURES
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise _Damaged("a measure is listed twice")
    rows, numbers, values = [], [], []
    for column in columns:
        if len(column.rows) % 4 or len(column.values) != 2 * len(column.rows):
            sizes = f"{len(column.rows)} bytes of rows and {len(column.values)} of values"
            raise _Damaged(f"measure {column.name!r} has {sizes}, expected 4 and 8 for each")
        row = np.frombuffer(column.rows, dtype="<u4").astype(np.int64)
        if len(row) and (int(row[-1]) >= n or not (row[1:] > row[:-1]).all()):
            raise _Damaged(f"rows of measure {column.name!r} do not ascend, or pass the {n} samples")
        rows.append(row)
        numbers.append(np.full(len(row), interner.measures[column.name], dtype=np.int64))
        values.append(np.frombuffer(column.values, dtype="<f8"))
    if len(rows) == 1:
        return rows[0], numbers[0], values[0]
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    return row[order], np.concatenate(numbers)[order], np.concatenate(values)[order]


def _good(columns: Columns) -> NDArray[np.bool_]:
    # Comparisons with nan are false: a time that is none fails, a latency that is none must not.
    good = (columns.ts >= MIN_TIME) & (columns.ts <= MAX_TIME)
    good &= (columns.n >= 1) & (columns.n <= MAX_N)
    good &= (columns.profile | columns.instance | columns.kind) >= 0
    good &= ~((columns.latency_ms < 0) | (columns.latency_ms > MAX_LATENCY_MS))
    bad = ~(np.abs(columns.measure_value) <= MAX_MEASURE) | (columns.measure_id == INVALID)
    good[columns.measure_row[bad]] = False
    if len(columns.ids):
        good &= ~columns.misidentified
        good[columns.id_row[_misnamed(columns.ids)]] = False
    return good


def _misnamed(ids: Text) -> NDArray[np.bool_]:
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    return (lengths < 1) | (lengths > MAX_ID)


def _reason(columns: Columns, start: int, row: int, value: bytes, table: Table) -> str:
    """What is wrong with row `row` of a record whose samples begin at `start`: the first thing that is."""
    sample = start + row
    ts, n, latency = float(columns.ts[sample]), int(columns.n[sample]), float(columns.latency_ms[sample])
    if not MIN_TIME <= ts <= MAX_TIME:
        return f"ts {ts} is not between {MIN_TIME} and {MAX_TIME}"
    if not 1 <= n <= MAX_N:
        return f"n {n} is not between 1 and {MAX_N}"
    if latency < 0 or latency > MAX_LATENCY_MS:
        return f"latency_ms is not a number between 0 and {MAX_LATENCY_MS:.0f}"
    if columns.misidentified[sample]:
        return MISIDENTIFIED
    if (_misnamed(columns.ids) & (columns.id_row == sample)).any():
        return f"id must have 1 to {MAX_ID} characters"
    batch = _read(value)
    if columns.profile[sample] == INVALID:
        return table.msgpack.explain(_profile_keys(bytes(batch.profiles))[_index(batch.profile, row, batch.n)])
    if columns.instance[sample] == INVALID:
        return table.instances.explain(_instances(batch.instances)[_index(batch.instance, row, batch.n)])
    if columns.kind[sample] == INVALID:
        kind = _kinds(batch.kinds)[_index(batch.kind, row, batch.n)]
        return f"status {kind.status}, outcome {kind.outcome!r} or cache {kind.cache!r} is not a value of the field"
    return f"a measure is not a number between {-MAX_MEASURE:.0f} and {MAX_MEASURE:.0f}, or its name is not fit"


def _index(raw: bytes, row: int, n: int) -> int:
    return int(np.frombuffer(raw, dtype=_WIDTHS[len(raw) // n])[row]) if raw else 0
