"""A sample in JSON, and the mending of one that the strict decoder refuses.

The fast path decodes strictly, all fields at once. Only a sample that fails is read here field by field: an optional
field that cannot be read is dropped and the request counts; a sample whose time or weight cannot be read is rejected,
and counts as rejected for its service.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec
from msgspec import Raw

from detectors.windows.unreadable import Field, unreadable
from streams.decoders.faults import Why, shown
from streams.decoders.hints import NOT_TEXT, instead, recognised, time_fault
from streams.decoders.lenient import name_fault, variant_fault
from streams.telemetry.sample import (
    CACHES,
    DEFAULT_ENVIRONMENT,
    MAX_ID,
    MAX_LATENCY_MS,
    MAX_MEASURE,
    MAX_N,
    MAX_NAME,
    MAX_STATUS,
    MAX_TIME,
    MIN_TIME,
    NO_RESULT,
    OUTCOMES,
    REJECTED_PHASE,
    UNREADABLE,
    Id,
    Instance,
    Latency,
    Measure,
    Multiplicity,
    Name,
    Outcome,
    Phase,
    Spelling,
    Status,
    Time,
)

NO_FLAGS: Final = Raw()
MISIDENTIFIED: Final = Why("id", "a started sample needs one, of 1 to 128 characters, and n must be 1")


class Row(msgspec.Struct, gc=False):
    """`sample.Sample` with encoded flags: they are found by their bytes, which saves a dict a sample.

    The route is not used, so it is not decoded. `kind` is REJECTED_PHASE, which no sample can send, if the sample does
    not count as a request.
    """

    ts: Time
    service: Name
    environment: Name | None = DEFAULT_ENVIRONMENT
    instance: Instance | None = None
    status: Status | None = None
    outcome: Outcome | None = None
    latency_ms: Latency | None = None
    cache: Spelling | None = None
    flags: Raw = NO_FLAGS
    measures: dict[str, Measure] | None = None
    n: Multiplicity | None = 1
    kind: Phase | None = "completed"
    id: Id | None = None


class Mended(NamedTuple):
    """A mended sample: `row` is None if its service is unknown, `rejected` says why it does not count as a request.

    `dropped` are the reasons for dropped fields, `unread` the measures that count them.
    """

    row: Row | None
    rejected: Why | None
    dropped: list[Why]
    unread: list[str]


def mend(given: object, stamp: float) -> Mended:
    """Read a sample field by field; `stamp` is the time of its record, infinite if it has none."""
    if not isinstance(given, dict):
        return Mended(None, Why("record", recognised(given) or "must be a JSON object", shown(given)), [], [])
    fields = cast("dict[str, Any]", given)
    why = whose(fields)
    if why is not None:
        looks = recognised(fields)
        return Mended(None, Why("record", looks) if looks else why, [], [])
    mending = _Mending(fields)
    instance = mending.field("instance", _instance)
    environment = fields.get("environment")
    ts: Any = fields.get("ts")
    n: Any = fields.get("n")
    timely, counted = is_number(ts, MIN_TIME, MAX_TIME), n is None or (is_number(n, 1, MAX_N) and float(n).is_integer())
    rejected = None if timely else (instead(fields, "ts") if "ts" not in fields else None) or time_fault(ts)
    if rejected is None and not counted:
        rejected = Why("n", f"must be a whole number from 1 to {MAX_N:,}", shown(n))
    kind, id_ = fields.get("kind"), mending.field("id", _id)
    if rejected is None and kind == "started" and (id_ is None or n not in (None, 1)):
        rejected = MISIDENTIFIED
    if rejected is not None:
        at = float(ts) if timely else stamp
        if not math.isfinite(at):
            return Mended(None, rejected, [], [])
        weight = int(n) if counted and n is not None else 1
        row = Row(ts=at, service=fields["service"], environment=environment, instance=instance, n=weight)
        row.kind = cast("Phase", REJECTED_PHASE)
        return Mended(row, rejected, [], [])
    row = Row(
        ts=float(ts),
        service=fields["service"],
        environment=environment,
        instance=instance,
        status=mending.field("status", _status),
        outcome=mending.field("outcome", _outcome),
        latency_ms=mending.field("latency_ms", _latency, "latency"),
        cache=mending.field("cache", _cache, "cache"),
        flags=_flags(fields.get("flags")),
        measures=mending.measures(fields.get("measures")),
        n=1 if n is None else int(n),
        kind=mending.field("kind", _kind),
        id=id_,
    )
    return Mended(row, None, mending.dropped, mending.unread)


def whose(fields: Mapping[str, Any]) -> Why | None:
    """Why the service or environment of a sample is unknown; None if both are known."""
    if fields.get("service") is None:
        return instead(fields, "service") or Why("service", "is missing")
    for what in ("service", "environment"):
        value = fields.get(what)
        said = None if value is None else name_fault(value)
        if said is not None:
            return Why(what, said, shown(value))
    return None


class _Mending:
    """Reads the optional fields of one sample and records those that cannot be read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.dropped: list[Why] = []
        self.unread: list[str] = []

    def field(self, name: str, read: Callable[[object], Any], counted: Field | None = None) -> Any:
        """The field as converted by `read`, None if it is absent.

        If `read` raises ValueError the field is dropped: it is None, the outcome UNREADABLE.
        """
        value = self._fields.get(name)
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as error:
            self.drop(Why(name, str(error), shown(value)), counted)
            return UNREADABLE if name == "outcome" else None

    def drop(self, why: Why, counted: Field | None = None, name: str = "") -> None:
        """Record a dropped field."""
        self.dropped.append(why)
        if counted is not None:
            self.unread.append(unreadable(counted, name))

    def measures(self, given: object) -> dict[str, float] | None:
        """The measures that can be read."""
        if given is None:
            return None
        if not isinstance(given, dict):
            self.drop(Why("measures", "must be an object of numbers", shown(given)))
            return None
        kept = {}
        for name, value in given.items():
            if is_number(value, -MAX_MEASURE, MAX_MEASURE):
                kept[name] = float(value)
            else:
                said = NOT_TEXT if isinstance(value, str) else f"must be a number of at most {MAX_MEASURE:g} in size"
                self.drop(Why(f"measures.{name[:MAX_NAME]}", said, shown(value)), "measure", name)
        return kept


def is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _instance(value: object) -> str:
    if isinstance(value, str) and (not value or (len(value) <= MAX_NAME and value.isprintable())):
        return value
    raise ValueError(f"must be a text of at most {MAX_NAME} characters that print")


def _id(value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= MAX_ID:
        return value
    raise ValueError(f"must be a text of 1 to {MAX_ID} characters")


def _status(value: object) -> int:
    if is_number(value, 0, MAX_STATUS) and float(cast("float", value)).is_integer():
        return int(cast("float", value))
    raise ValueError(NOT_TEXT if isinstance(value, str) else f"must be a whole number from 0 to {MAX_STATUS}")


def _outcome(value: object) -> Outcome:
    if isinstance(value, str) and value in OUTCOMES:
        return value
    raise ValueError(f"must be one of {', '.join(OUTCOMES)}")


def _latency(value: object) -> float:
    if is_number(value, 0, MAX_LATENCY_MS):
        return float(cast("float", value))
    raise ValueError(
        NOT_TEXT if isinstance(value, str) else f"must be milliseconds from 0 to {MAX_LATENCY_MS:,.0f} (an hour)"
    )


def _cache(value: object) -> str | None:
    if isinstance(value, str):
        spelt = value.lower()
        if spelt in NO_RESULT:
            return None
        if spelt in CACHES:
            return spelt
    raise ValueError(f"must be one of {', '.join(CACHES)}")


def _kind(value: object) -> str:
    if isinstance(value, str) and value in ("completed", "started"):
        return value
    raise ValueError("must be completed or started")


def _flags(given: object) -> Raw:
    """The encoded flags for the look-up; a value that is not a variant stays one that is not."""
    if given is None:
        return NO_FLAGS
    if not isinstance(given, dict):
        return Raw(b"false")
    return Raw(msgspec.json.encode({name: _variant(value) for name, value in given.items() if name.isprintable()}))


def _variant(value: object) -> object:
    if variant_fault(value) is None or isinstance(value, bool) or is_number(value, -MAX_MEASURE, MAX_MEASURE):
        return value
    return {} if isinstance(value, dict) else [] if isinstance(value, list) else False
