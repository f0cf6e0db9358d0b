"""The events that flipback publishes: CloudEvents 1.0 in the binary mode of the Kafka protocol binding.

The attributes are `ce_*` headers and the data is the JSON value. The subject ("environment/flag") is the record's key,
so that all events of a flag stay in order.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from agent.errors import MalformedEvent
from streams.unreadable import UNREADABLE

COMMAND_RECEIVED: Final = "flipback.command.received"
COMMAND_REJECTED: Final = "flipback.command.rejected"
COMMAND_SHADOWED: Final = "flipback.command.shadowed"
FLAG_SNAPSHOT: Final = "flipback.flag.snapshot"
FLAG_WRITTEN: Final = "flipback.flag.written"
FLAG_VERIFIED: Final = "flipback.flag.verified"
FLAG_UNVERIFIED: Final = "flipback.flag.unverified"
FLAG_ALREADY: Final = "flipback.flag.already"
FLAG_CONFLICT: Final = "flipback.flag.conflict"
FLAG_AMBIGUOUS: Final = "flipback.flag.ambiguous"
FLAG_UNRESOLVED: Final = "flipback.flag.unresolved"
FLAG_NOT_WRITTEN: Final = "flipback.flag.not-written"
FLAG_EFFECTIVE: Final = "flipback.flag.effective"
FLAG_INEFFECTIVE: Final = "flipback.flag.ineffective"
FLAG_EFFECT_UNKNOWN: Final = "flipback.flag.effect-unknown"
FLAG_RECOVERED: Final = "flipback.flag.recovered"
FLAG_NOT_RECOVERED: Final = "flipback.flag.not-recovered"
FLAG_RECOVERY_UNKNOWN: Final = "flipback.flag.recovery-unknown"
FLAG_RESTORED: Final = "flipback.flag.restored"
FLAG_CHANGED: Final = "flipback.flag.changed"
INCIDENT_DONE: Final = "flipback.incident.done"
AUTOMATION_HALTED: Final = "flipback.automation.halted"
AUTOMATION_RESUMED: Final = "flipback.automation.resumed"
DRIFT_WORSE: Final = "flipback.drift.worse"
DRIFT_BETTER: Final = "flipback.drift.better"
INABILITY: Final = "flipback.inability"
TELEMETRY_REJECTED: Final = "flipback.telemetry.rejected"

NOTICE: Final = "notice"
"""The status of an inability that stopped no flip: the flip was done, and a person should know about the problem."""

AUTOMATION: Final = "automation"
"""The subject of events that concern no single flag: halts, and an outage of everything."""

SOURCE: Final = "/flipback"
_NAMESPACE = uuid.UUID("d2b4f0a3-4d1e-4a53-8a5e-0d9f0f9e7c11")
_CONTENT_TYPE = b"application/json"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. `time` is Unix seconds, `data` has JSON values; an `id` seen before is a re-delivery.

    If an event judges evidence, `time` is the evidence's time. `recorded` is the clock when the event was handed over
    to be published, None before that.
    https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/recorded-time.md
    """

    type: str
    subject: str
    data: dict[str, Any]
    id: str
    time: float
    recorded: float | None = None


Headers = list[tuple[str, bytes]]


def trigger_type(state: str) -> str:
    """Return the type of the event that a trigger's verdict became `state` (pending, firing, ...)."""
    return f"flipback.trigger.{state}"


def subject_of(environment: str, flag: str) -> str:
    return f"{environment}/{flag}"


def event_id(*parts: str) -> str:
    """Return the id that follows from `parts`, such as a command, a type and a number; equal parts give equal ids."""
    return str(uuid.uuid5(_NAMESPACE, msgspec.json.encode(parts).decode()))


def inability(subject: str, status: str, reason: str, *, begun: bool, at: float) -> Event:
    """Make the event that `subject` is unable since `at` (Unix seconds), or able again; `status` is the kind."""
    state = "begun" if begun else "ended"
    return Event(
        type=INABILITY,
        subject=subject,
        data={"state": state, "status": status, "reason": reason},
        id=event_id(status, subject, state, str(at)),
        time=at,
    )


def to_kafka(event: Event) -> tuple[bytes, bytes, Headers]:
    """Return the key, value and headers of the event's record."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", event.type.encode()),
        ("ce_subject", event.subject.encode()),
        ("ce_time", _moment(event.time)),
        ("content-type", _CONTENT_TYPE),
    ]
    if event.recorded is not None:
        headers.append(("ce_recordedtime", _moment(event.recorded)))
    return event.subject.encode(), msgspec.json.encode(event.data), headers


def from_kafka(value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Event:
    """Return a record's event. Raises MalformedEvent if it has none, or another mode or version of CloudEvents."""
    found = dict(headers)
    if found.get("ce_specversion") != b"1.0":
        raise MalformedEvent("the record has no header ce_specversion 1.0: it is no CloudEvent in binary mode")
    if found.get("content-type", _CONTENT_TYPE).split(b";")[0].strip() != _CONTENT_TYPE:
        raise MalformedEvent(f"the event's data is {found['content-type']!r}, expected application/json")
    try:
        recorded = found.get("ce_recordedtime")
        return Event(
            type=found["ce_type"].decode(),
            subject=found["ce_subject"].decode(),
            data=_data.decode(value or b""),
            id=found["ce_id"].decode(),
            time=_seconds(found["ce_time"]),
            recorded=None if recorded is None else _seconds(recorded),
        )
    except KeyError as error:
        raise MalformedEvent(f"the event has no header {error.args[0]}") from error
    except UNREADABLE as error:
        raise MalformedEvent(f"the event cannot be read: {error}") from error


def _moment(at: float) -> bytes:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()


def _seconds(moment: bytes) -> float:
    found = datetime.fromisoformat(moment.decode())
    if found.tzinfo is None:
        raise MalformedEvent(f"the event's time {found.isoformat()} has no zone")
    return found.timestamp()


_data = msgspec.json.Decoder(dict[str, Any])
