"""Reads one record with a snapshot of counters: its values, its series, or the reason why it does not count."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from streams.decoders.columns import RejectKind, Rejects
from streams.decoders.faults import Why, shown
from streams.decoders.hints import recognised, time_fault
from streams.decoders.interner import Table
from streams.decoders.json_rows import is_number, whose
from streams.decoders.lenient import loose
from streams.decoders.profiles import INVALID, LONGEST_KEPT
from streams.grouped_sums import LIMIT
from streams.telemetry.sample import DEFAULT_ENVIRONMENT, MAX_RECORD_BYTES, MAX_TIME, MIN_TIME, Instance, Name, Time

Count = Annotated[int, Meta(ge=0, le=LIMIT)]


class Counters(msgspec.Struct, forbid_unknown_fields=True):
    """Totals since the process began, None if not observed. A misspelt name is rejected: it would hide errors."""

    requests: Count
    errors: Count | None = None
    timeouts: Count | None = None
    unavailable: Count | None = None
    cache_hits: Count | None = None
    cache_lookups: Count | None = None


class CounterSnapshot(msgspec.Struct):
    """The counters of a series at `ts`, Unix seconds."""

    ts: Time
    service: Name
    counters: Counters
    environment: Name | None = DEFAULT_ENVIRONMENT
    instance: Instance | None = None
    flags: object = None


_decode: Final = msgspec.json.Decoder(CounterSnapshot).decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode

SeriesKey = tuple[str, str, str, bytes]
"""Environment, service, instance and encoded flags of a series."""


class NotCounted(Exception):
    """A snapshot is rejected as `kind`, because of `why`."""

    def __init__(self, kind: RejectKind, why: Why) -> None:
        super().__init__(str(why))
        self.kind = kind
        self.why = why


def read_snapshot(value: bytes | None, rejects: Rejects) -> CounterSnapshot:
    """Decode a snapshot; counts a dropped field in `rejects`. Raises NotCounted."""
    if value is None:
        raise NotCounted("empty", Why("record", "has no value"))
    if len(value) > MAX_RECORD_BYTES:
        raise NotCounted("oversized", Why("record", f"must have {MAX_RECORD_BYTES:,} bytes at most", f"{len(value):,}"))
    try:
        snapshot = _decode(value)
    except msgspec.ValidationError as error:
        raise NotCounted("invalid", _why(value, error)) from None
    # RecursionError: thousands of nested arrays in an unknown field.
    except (ValueError, RecursionError):
        said = recognised(value) or "is no JSON"
        raise NotCounted("malformed", Why("record", said, shown(value[:60]))) from None
    if snapshot.counters.cache_lookups is None and snapshot.counters.cache_hits is not None:
        # Without the lookups every lookup would seem a hit.
        rejects.faults.add("dropped", Why("counters.cache_hits", "needs cache_lookups too"))
        snapshot.counters.cache_hits = None
    return snapshot


def _why(value: bytes, error: msgspec.ValidationError) -> Why:
    try:
        given = loose(value)
    except (ValueError, RecursionError):
        # The strict decoder stops at the first wrong value, before the part that is no JSON.
        return Why("record", "is no JSON", shown(value[:60]))
    looks = recognised(given)
    if looks is not None:
        return Why("record", looks)
    if isinstance(given, dict):
        unknown = whose(given)
        if unknown is not None:
            return unknown
        if not is_number(given.get("ts"), MIN_TIME, MAX_TIME):
            return time_fault(given.get("ts"))
    return Why("record", str(error))


def attributed(value: bytes | None, stamp: float, table: Table) -> tuple[float, int, int] | None:
    """Time, profile and instance of a rejected snapshot; None if its service is unknown."""
    if value is None or len(value) > MAX_RECORD_BYTES:
        return None
    try:
        given = loose(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or whose(given) is not None:
        return None
    ts: Any = given.get("ts")
    instance = given.get("instance")
    at = float(ts) if is_number(ts, MIN_TIME, MAX_TIME) else stamp
    profile = table.json[given.get("environment"), given["service"], b""]
    number = table.instances[instance] if isinstance(instance, str) else INVALID
    return (at, profile, number) if math.isfinite(at) else None


def series_of(snapshot: CounterSnapshot, table: Table) -> tuple[SeriesKey, int, int]:
    """The key of the series, its profile and its instance.

    The key has the flags as they are sent, even if they cannot be read: two series that differ in a flag must not be
    taken for one.
    """
    environment = DEFAULT_ENVIRONMENT if snapshot.environment is None else snapshot.environment
    # Encoded in sorted order: the same flags in another order are the same series.
    flags = _encode(snapshot.flags) if snapshot.flags else b""
    if len(flags) > LONGEST_KEPT:
        raise NotCounted("invalid", Why("flags", f"must take {LONGEST_KEPT:,} bytes at most", f"{len(flags):,}"))
    profile = table.json[environment, snapshot.service, flags]
    instance = table.instances[snapshot.instance]
    if profile == INVALID or instance == INVALID:
        what = "instance" if profile != INVALID else "service"
        raise NotCounted("invalid", Why(what, "must have characters that print"))
    return (environment, snapshot.service, snapshot.instance or "", flags), profile, instance
