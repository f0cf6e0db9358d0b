"""Columnar batches to columns: lists are numbered entry by entry, or found as a whole, samples by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta, Raw
from numpy.typing import NDArray

from detectors.arrays import Float, Int
from detectors.windows.unreadable import unreadable
from streams.decoders.columnar_lists import (
    KIND,
    KIND_FAULTS,
    LONGEST_LIST,
    NO_CACHE,
    Damaged,
    instance_numbers,
    numbers_of_kinds,
    profile_numbers,
)
from streams.decoders.columns import NO_IDS, NO_MEASURES, Columns, Rejects, Text, joined
from streams.decoders.faults import Faults, Why, shown
from streams.decoders.hints import recognised, time_fault
from streams.decoders.interner import Interner, Table
from streams.decoders.json_rows import MISIDENTIFIED
from streams.decoders.profiles import INVALID
from streams.telemetry.columnar import PLAIN_VERSION, VERSION, MeasureColumn
from streams.telemetry.sample import (
    MAX_ID,
    MAX_LATENCY_MS,
    MAX_MEASURE,
    MAX_N,
    MAX_RECORD_BYTES,
    MAX_TIME,
    MIN_TIME,
    STARTED_KIND,
)

_MOST_IDS: Final = MAX_RECORD_BYTES // 14
"""The same for ids, of which each has a sample: 8 bytes of time, 4 of the row, 2 of itself."""
_UNTIMED: Final = float(np.nextafter(np.finfo(np.float64).min, 0))
"""Stands for no latency until those of all records are looked at, as nan or the least number may have been sent."""


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
    measures: Annotated[list[MeasureColumn], Meta(max_length=LONGEST_LIST)]
    id_rows: bytes = b""
    ids: Annotated[list[object], Meta(max_length=_MOST_IDS)] = msgspec.field(default_factory=list)
    started: bytes = b""


_batch: Final = msgspec.msgpack.Decoder(_Batch).decode
_header: Final = msgspec.msgpack.Decoder(list[Raw]).decode
_WIDTHS: Final = {1: "<u1", 2: "<u2", 4: "<u4"}
_LATENCY: Final = Why("latency_ms", f"must be milliseconds from 0 to {MAX_LATENCY_MS:,.0f} (an hour)")
_MEASURE: Final = Why("measures", f"must be numbers of at most {MAX_MEASURE:g} in size")
_FAULTS: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def decode_columnar(
    first: int, values: Sequence[bytes | None], stamps: Float, interner: Interner, table: Table, rejects: Rejects
) -> Columns:
    """Decode consecutive records of a slice, of which the first is number `first` there.

    `stamps` are the times of the records of the slice, infinite where they have none.
    """
    parts = []
    for index, value in enumerate(values, first):
        if value is None:
            rejects.add(index, "empty", Why("record", "has no value"))
        elif len(value) > MAX_RECORD_BYTES:
            why = Why("record", f"must have {MAX_RECORD_BYTES:,} bytes at most", f"{len(value):,}")
            rejects.add(index, "oversized", why)
        else:
            try:
                parts.append(_columns(index, _read(value), interner, table))
            except _FAULTS as error:
                said = recognised(value)
                why = Why("record", said or f"is no columnar batch: {error}")
                rejects.add(index, "malformed", why)
    # Once for all records: of one with 1,000 samples each look takes as long as reading it.
    columns = _readable(joined(parts), interner, rejects.faults)
    bad = _bad(columns)
    if not bad.any():
        return columns
    starts = np.searchsorted(columns.record, columns.record)
    # Where the time is no time, that of the record tells when the sample came.
    timeless = ~_timely(columns.ts)
    at = np.where(timeless, stamps[columns.record], columns.ts)
    lost = bad & ((columns.profile == INVALID) | ~np.isfinite(at))
    for index in np.unique(columns.record[bad]).tolist():
        own = np.flatnonzero(bad & (columns.record == index))
        unread = int(np.count_nonzero(lost[own]))
        why = _why(columns, int(own[0]))
        rejects.add(index, "invalid", why, int(own[0] - starts[own[0]]), len(own), unread=unread)
    columns = replace(columns, ts=at).where(~lost)
    return columns.without_requests(bad[~lost], table)


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
        raise Damaged(f"ts has {len(batch.ts)} bytes, expected 8 for each of {batch.n} samples")
    return batch


def _check_version(version: int) -> None:
    if version not in (PLAIN_VERSION, VERSION):
        raise Damaged(f"version {version}, expected {PLAIN_VERSION} or {VERSION}") from None


def _columns(index: int, batch: _Batch, interner: Interner, table: Table) -> Columns:
    """The samples as they were sent; `kind` has the bits of KIND_FAULTS, and `ids` may be of any type."""
    n = batch.n
    rows, numbers, measured = _measures(n, batch.measures, interner)
    id_row, ids = _ids(n, batch)
    kind = _looked_up("kind", n, batch.kind, table.listed(b"k", bytes(batch.kinds), numbers_of_kinds))
    if batch.started:
        kind[id_row[np.frombuffer(batch.started, dtype=np.uint8) != 0]] = STARTED_KIND
    return Columns(
        record=np.full(n, index, dtype=np.int64),
        ts=np.frombuffer(batch.ts, dtype="<f8"),
        profile=_looked_up("profile", n, batch.profile, table.listed(b"p", bytes(batch.profiles), profile_numbers)),
        instance=_looked_up(
            "instance", n, batch.instance, table.listed(b"i", bytes(batch.instances), instance_numbers)
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


def _readable(columns: Columns, interner: Interner, faults: Faults) -> Columns:
    """The samples without the fields that cannot be read; what may not be counted is out of bounds or INVALID."""
    misnamed = _misnamed(columns.ids)
    if misnamed.any():
        faults.add("dropped", Why("id", f"must be a text of 1 to {MAX_ID} characters"), int(misnamed.sum()))
        columns = replace(columns, id_row=columns.id_row[~misnamed], ids=columns.ids[~misnamed])
    strange = ~(np.abs(columns.measure_value) <= MAX_MEASURE)
    if strange.any():
        faults.add("dropped", _MEASURE, int(strange.sum()))
        unmeasured = _unmeasured(columns.measure_row[strange], columns.measure_id[strange], interner)
        columns = replace(
            columns,
            measure_row=columns.measure_row[~strange],
            measure_id=columns.measure_id[~strange],
            measure_value=columns.measure_value[~strange],
        ).with_measure(*unmeasured)
    latency_ms, kind = columns.latency_ms, columns.kind
    # Comparisons with nan are false: a latency that is no number fails too.
    untimed = np.flatnonzero(~((latency_ms >= 0) & (latency_ms <= MAX_LATENCY_MS)))
    if len(untimed):
        wrong = untimed[latency_ms[untimed] != _UNTIMED]
        latency_ms = latency_ms.copy()
        latency_ms[untimed] = np.nan
        columns = replace(columns, latency_ms=latency_ms)
        if len(wrong):
            faults.add("dropped", _LATENCY, len(wrong))
            columns = columns.with_measure(wrong, interner.unreadable[unreadable("latency")])
    if not len(kind) or int(kind.max()) <= KIND:
        return columns
    columns = replace(columns, kind=kind & KIND)
    for bit, why in KIND_FAULTS:
        at = np.flatnonzero(kind & bit)
        if len(at):
            faults.add("dropped", why, len(at))
            if bit == NO_CACHE:
                columns = columns.with_measure(at, interner.unreadable[unreadable("cache")])
    return columns


def _unmeasured(rows: Int, numbers: Int, interner: Interner) -> tuple[Int, Int]:
    """Rows of measures under watch whose values cannot be read, and the measures that count them."""
    names = interner.measures.names
    counted = {
        number: interner.unreadable.get(unreadable("measure", names[number])) if number >= 0 else None
        for number in np.unique(numbers).tolist()
    }
    kept = np.array([counted[number] is not None for number in numbers.tolist()], dtype=bool)
    return rows[kept], np.array([counted[number] for number in numbers[kept].tolist()], dtype=np.int64)


def _looked_up(name: str, n: int, raw: bytes, numbers: Int) -> Int:
    """The numbers that a column of indices stands for."""
    if not raw:
        if not len(numbers) and n:
            raise Damaged(f"no {name} is listed, but there are samples")
        return np.full(n, numbers[0] if n else 0, dtype=np.int64)
    width = _WIDTHS.get(len(raw) // n if n else 0)
    if width is None or len(raw) % n:
        raise Damaged(f"{name} has {len(raw)} bytes, expected 1, 2 or 4 for each of {n} samples")
    indices = np.frombuffer(raw, dtype=width)
    try:
        return numbers.take(indices)
    except IndexError:
        raise Damaged(f"{name} has index {int(indices.max())}, but {len(numbers)} are listed") from None


def _latencies(n: int, raw: bytes, timed: bytes) -> Float:
    if not raw and not timed:
        return np.full(n, _UNTIMED)
    if len(raw) != 8 * n:
        raise Damaged(f"latency_ms has {len(raw)} bytes, expected none, or 8 for each of {n} samples")
    latency = np.frombuffer(raw, dtype="<f8")
    if not timed:
        return latency
    if len(timed) != n:
        raise Damaged(f"timed has {len(timed)} bytes, expected none, or 1 for each of {n} samples")
    return np.where(np.frombuffer(timed, dtype=np.uint8) != 0, latency, _UNTIMED)


def _weights(n: int, raw: bytes) -> Int:
    if not raw:
        return np.ones(n, dtype=np.int64)
    if len(raw) != 4 * n:
        raise Damaged(f"weight has {len(raw)} bytes, expected none, or 4 for each of {n} samples")
    return np.frombuffer(raw, dtype="<u4").astype(np.int64)


def _ids(n: int, batch: _Batch) -> tuple[Int, Text]:
    """Row and id of every sample that has one."""
    if not batch.ids and not batch.id_rows and not batch.started:
        return NO_IDS
    if len(batch.id_rows) != 4 * len(batch.ids) or len(batch.started) not in (0, len(batch.ids)):
        sizes = f"{len(batch.id_rows)} bytes of rows and {len(batch.started)} of started"
        raise Damaged(f"{len(batch.ids)} ids have {sizes}, expected 4 and 1 for each")
    rows = np.frombuffer(batch.id_rows, dtype="<u4").astype(np.int64)
    if int(rows[-1]) >= n or not (rows[1:] > rows[:-1]).all():
        raise Damaged(f"rows of ids do not ascend, or pass the {n} samples")
    ids = np.empty(len(rows), dtype=object)
    ids[:] = [name if isinstance(name, str) else None for name in batch.ids]
    return rows, ids


def _measures(n: int, columns: Sequence[MeasureColumn], interner: Interner) -> tuple[Int, Int, Float]:
    """Row, number and value of every measure, by row."""
    if not columns:
        return NO_MEASURES
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise Damaged("a measure is listed twice")
    rows, numbers, values = [], [], []
    for column in columns:
        if len(column.rows) % 4 or len(column.values) != 2 * len(column.rows):
            sizes = f"{len(column.rows)} bytes of rows and {len(column.values)} of values"
            raise Damaged(f"measure {column.name!r} has {sizes}, expected 4 and 8 for each")
        row = np.frombuffer(column.rows, dtype="<u4").astype(np.int64)
        if len(row) and (int(row[-1]) >= n or not (row[1:] > row[:-1]).all()):
            raise Damaged(f"rows of measure {column.name!r} do not ascend, or pass the {n} samples")
        rows.append(row)
        numbers.append(np.full(len(row), interner.measures[column.name], dtype=np.int64))
        values.append(np.frombuffer(column.values, dtype="<f8"))
    if len(rows) == 1:
        return rows[0], numbers[0], values[0]
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    return row[order], np.concatenate(numbers)[order], np.concatenate(values)[order]


def _timely(ts: Float) -> NDArray[np.bool_]:
    # Comparisons with nan are false: a time that is none fails.
    timely: NDArray[np.bool_] = (ts >= MIN_TIME) & (ts <= MAX_TIME)
    return timely


def _bad(columns: Columns) -> NDArray[np.bool_]:
    bad: NDArray[np.bool_] = ~_timely(columns.ts) | (columns.n < 1) | (columns.n > MAX_N) | (columns.profile == INVALID)
    return bad | columns.misidentified


def _misnamed(ids: Text) -> NDArray[np.bool_]:
    if not len(ids):
        return np.zeros(0, dtype=bool)
    return np.array([not isinstance(name, str) or not 1 <= len(name) <= MAX_ID for name in ids], dtype=bool)


def _why(columns: Columns, row: int) -> Why:
    """What is wrong with a bad sample: the first thing that is."""
    ts, n = float(columns.ts[row]), int(columns.n[row])
    if columns.profile[row] == INVALID:
        return Why("service", "or environment must be a text of 1 to 256 characters that print")
    if not MIN_TIME <= ts <= MAX_TIME:
        return time_fault(ts)
    if not 1 <= n <= MAX_N:
        return Why("n", f"must be a whole number from 1 to {MAX_N:,}", shown(n))
    return MISIDENTIFIED
