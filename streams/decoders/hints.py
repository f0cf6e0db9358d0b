"""Hints at what a sender probably did wrong, for a person who sees rejected samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streams.decoders.faults import Why, shown
from streams.decoders.lenient import loose
from streams.telemetry.sample import MAX_TIME, MIN_TIME

_UNITS: Final = (("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000))

NOT_TEXT: Final = "must be a number, not text: send it without quotes"

_KEYS: Final[tuple[tuple[frozenset[str], str], ...]] = tuple(
    (frozenset(keys.split()), name)
    for keys, name in (
        ("resourceSpans", "OTLP traces"),
        ("resource_spans", "OTLP traces"),
        ("resourceMetrics", "OTLP metrics"),
        ("resource_metrics", "OTLP metrics"),
        ("resourceLogs", "OTLP logs"),
        ("resource_logs", "OTLP logs"),
        ("traceId localEndpoint", "Zipkin"),
        ("traceId kind timestamp", "Zipkin"),
        ("traceId operationName", "Jaeger"),
        ("traceID operationName", "Jaeger"),
        ("trace_id operation_name", "Jaeger"),
        ("specversion data", "a CloudEvent in structured mode"),
        ("schema payload", "an envelope of Kafka Connect"),
        ("response_code upstream_cluster", "an access log of Envoy"),
        ("response_code response_flags", "an access log of Envoy"),
        ("DownstreamStatus", "an access log of Traefik"),
        ("latencies request", "a log of Kong"),
        ("apisix_latency", "a log of APISIX"),
        ("@timestamp", "ECS, Logstash or Filebeat"),
        ("time_local", "an access log of nginx"),
        ("body_bytes_sent", "an access log of nginx"),
        ("request_time", "an access log of nginx"),
        ("request logger", "an access log of Caddy"),
        ("termination_state", "a log of HAProxy"),
        ("frontend_name backend_name", "a log of HAProxy"),
        ("labels value", "metrics of Prometheus"),
        ("fields tags", "metrics of Telegraf"),
        ("log stream", "a container log of a log shipper"),
    )
)
_READS: Final = "flipback reads objects with ts and service"

LOOK_ALIKES: Final[Mapping[str, tuple[str, ...]]] = {
    "status": (
        "status_code", "statusCode", "http_status", "httpStatus", "response_code", "responseCode", "http.status_code",
        "http.response.status_code", "code", "result", "success", "error", "level",
    ),
    "latency_ms": (
        "duration_ms", "durationMs", "latency", "latencyMs", "duration", "responseTime", "response_time",
        "response_time_ms", "request_time", "elapsed", "elapsed_ms", "took",
    ),
    "cache": ("cache_status", "cacheStatus", "upstream_cache_status", "x_cache"),
    "ts": ("timestamp", "time", "@timestamp", "date", "datetime"),
    "service": ("service_name", "serviceName", "service.name", "app", "application"),
    "flags": ("feature_flags", "featureFlags", "flag", "variants", "experiments"),
}  # fmt: skip
"""Other common names of a field."""


def look_alike(fields: Mapping[str, object], field: str) -> str | None:
    """The name of a field that seems to hold the value of `field`."""
    return next((name for name in LOOK_ALIKES.get(field, ()) if name in fields), None)


def instead(fields: Mapping[str, object], field: str) -> Why | None:
    """The fault that a record has another name for a field; None if it has none."""
    name = look_alike(fields, field)
    return None if name is None else Why(field, f"the sample has `{name}`, not `{field}`")


def look_alikes(value: bytes, row: int) -> list[Why]:
    """The other names that a sample has for its missing fields; `row` is its index in the JSON record."""
    try:
        given = loose(value)
    except (ValueError, RecursionError):
        try:
            given = loose(value.split(b"\n")[row])
        except (ValueError, RecursionError, IndexError):
            return []
    sample = given[row] if isinstance(given, list) and row < len(given) else given
    if not isinstance(sample, dict):
        return []
    absent = [field for field in ("status", "latency_ms", "cache", "flags") if sample.get(field) is None]
    return [why for why in (instead(sample, field) for field in absent) if why is not None]


def time_fault(value: object) -> Why:
    """What is wrong with a time."""
    if isinstance(value, str):
        return Why("ts", "must be Unix seconds as a number, such as 1700000000.25", shown(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        for unit, factor in _UNITS:
            if MIN_TIME * factor <= value <= MAX_TIME * factor:
                return Why("ts", f"is in {unit}: divide by {factor:,}", shown(value))
        return Why("ts", "must be Unix seconds between the years 2000 and 2100", shown(value))
    return Why("ts", "must be Unix seconds as a number", shown(value))


def recognised(value: object) -> str | None:
    """The foreign format that a record looks like, as a text for people; None if it looks like none."""
    if isinstance(value, bytes | bytearray):
        return _recognised_bytes(bytes(value[:4096]))
    if isinstance(value, list) and value:
        return recognised(value[0])
    if isinstance(value, dict):
        name = next((name for keys, name in _KEYS if keys <= value.keys()), None)
        return None if name is None else f"looks like {name}; {_READS}"
    return None


def _recognised_bytes(head: bytes) -> str | None:
    if head[:1] == b"\0" and len(head) > 5:
        within = " before the record: send plain JSON" if head[5:6] in b"{[" else " (Avro, Protobuf): send JSON"
        return f"begins with the five bytes of a schema registry{within}"
    if head[:1] == b"\n" and not head.lstrip().startswith((b"{", b"[")):
        named = "OTLP as protobuf" if b"service.name" in head else "protobuf, such as OTLP"
        return f"looks like {named}; {_READS} in JSON or columnar batches"
    if head[:2] in (b"\x1f\x8b", b"(\xb5") or head[:4] == b"\x04\x22\x4d\x18":
        return "is compressed by its producer: use compression.type of the Kafka client instead"
    return None
