"""Decodes columnar batches: drops fields that cannot be read, and rejects samples that cannot be counted.

`columnar_layout` turns the bytes into arrays. The checks here run once for all records of a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int
from detectors.windows.unreadable import unreadable
from streams.decoders.columnar_layout import UNTIMED, columns_of, read_batch
from streams.decoders.columnar_lists import KIND, KIND_FAULTS, NO_CACHE
from streams.decoders.columns import Columns, Rejects, Text, joined
from streams.decoders.faults import Faults, Why, shown
from streams.decoders.hints import recognised, time_fault
from streams.decoders.interner import Interner, Table
from streams.decoders.json_rows import MISIDENTIFIED
from streams.decoders.profiles import INVALID
from streams.telemetry.sample import MAX_ID, MAX_LATENCY_MS, MAX_MEASURE, MAX_N, MAX_RECORD_BYTES, MAX_TIME, MIN_TIME

_LATENCY: Final = Why("latency_ms", f"must be milliseconds from 0 to {MAX_LATENCY_MS:,.0f} (an hour)")
_MEASURE: Final = Why("measures", f"must be numbers of at most {MAX_MEASURE:g} in size")
_FAULTS: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def decode_columnar(
    first: int, values: Sequence[bytes | None], stamps: Float, interner: Interner, table: Table, rejects: Rejects
) -> Columns:
    """Decode consecutive records of a slice; `first` is the index of the first of them in the slice.

    `stamps` (records of the slice,) are the times of the records, infinite for a record without one.
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
                parts.append(columns_of(index, read_batch(value), interner, table))
            except _FAULTS as error:
                said = recognised(value)
                why = Why("record", said or f"is no columnar batch: {error}")
                rejects.add(index, "malformed", why)
    # Check all records at once: for a record of 1,000 samples each check takes as long as reading it.
    columns = _readable(joined(parts), interner, rejects.faults)
    bad = _bad(columns)
    if not bad.any():
        return columns
    starts = np.searchsorted(columns.record, columns.record)
    # A sample without a valid time gets the time of its record.
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


def _readable(columns: Columns, interner: Interner, faults: Faults) -> Columns:
    """Drop the fields that cannot be read; `_bad` checks those that reject a sample (time, weight, profile)."""
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
    # Comparisons with nan are false, so nan fails this test too.
    untimed = np.flatnonzero(~((latency_ms >= 0) & (latency_ms <= MAX_LATENCY_MS)))
    if len(untimed):
        wrong = untimed[latency_ms[untimed] != UNTIMED]
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
    """Rows whose watched measure cannot be read (r,), and the numbers of the measures that count them (r,)."""
    names = interner.measures.names
    counted = {
        number: interner.unreadable.get(unreadable("measure", names[number])) if number >= 0 else None
        for number in np.unique(numbers).tolist()
    }
    kept = np.array([counted[number] is not None for number in numbers.tolist()], dtype=bool)
    return rows[kept], np.array([counted[number] for number in numbers[kept].tolist()], dtype=np.int64)


def _timely(ts: Float) -> NDArray[np.bool_]:
    # Comparisons with nan are false, so nan is not timely.
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
    """The first reason why a sample is bad."""
    ts, n = float(columns.ts[row]), int(columns.n[row])
    if columns.profile[row] == INVALID:
        return Why("service", "or environment must be a text of 1 to 256 characters that print")
    if not MIN_TIME <= ts <= MAX_TIME:
        return time_fault(ts)
    if not 1 <= n <= MAX_N:
        return Why("n", f"must be a whole number from 1 to {MAX_N:,}", shown(n))
    return MISIDENTIFIED
