"""Reasons say what the sender probably did."""

from __future__ import annotations

import json

import pytest

from streams.decoders.faults import MOST, Faults, Why, shown
from streams.settings import Format
from tests.support.samples import T0, Stage, as_json


def said(value: bytes, form: Format = "json") -> list[tuple[str, str]]:
    """Field and words of every fault of a record."""
    stage = Stage(form)
    stage.take([value])
    return [(fault.field, fault.said) for fault in stage.faults.entries()]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"ts": T0 * 1000}, "ts", "is in milliseconds: divide by 1,000"),
        ({"ts": T0 * 10**6}, "ts", "is in microseconds: divide by 1,000,000"),
        ({"ts": T0 * 10**9}, "ts", "is in nanoseconds: divide by 1,000,000,000"),
        ({"ts": "2026-11-28T12:00:00Z"}, "ts", "must be Unix seconds as a number, such as 1700000000.25"),
        ({"ts": str(T0)}, "ts", "must be Unix seconds as a number, such as 1700000000.25"),
        ({"status": "500"}, "status", "must be a number, not text: send it without quotes"),
        ({"latency_ms": "12.5"}, "latency_ms", "must be a number, not text: send it without quotes"),
        ({"flags": {"new": True}}, "flags.new", 'must be the name of the variant, such as "on", not its value'),
        ({"flags": {"new": {"value": 1}}}, "flags.new", 'must be the name of the variant, such as "on", not its value'),
    ],
    ids=str,
)
def test_common_mistakes_are_named(fields: dict[str, object], field: str, words: str) -> None:
    assert (field, words) in said(as_json(**fields))


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"resourceSpans": []}, "OTLP traces"),
        ({"resourceMetrics": []}, "OTLP metrics"),
        ([{"traceId": "a", "kind": "SERVER", "timestamp": 1, "localEndpoint": {}}], "Zipkin"),
        ({"@timestamp": "2026-11-28T12:00:00Z", "message": "x"}, "ECS"),
        ({"response_code": 503, "upstream_cluster": "cart"}, "Envoy"),
        ({"remote_addr": "::1", "request_time": 0.1, "status": "200"}, "nginx"),
        ({"request": {}, "latencies": {}, "started_at": 1}, "Kong"),
        ({"specversion": "1.0", "data": {}}, "CloudEvent"),
        ({"schema": {}, "payload": {}}, "Kafka Connect"),
    ],
    ids=str,
)
def test_records_of_others_are_recognised(record: object, name: str) -> None:
    ((field, words),) = said(json.dumps(record).encode())
    assert field == "record"
    assert name in words
    assert "flipback reads" in words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\0\0\0\0\7" + as_json(), "begins with the five bytes of a schema registry before the record"),
        (b"\0\0\0\0\7\x02\x06abc", "begins with the five bytes of a schema registry (Avro, Protobuf)"),
        (b"\x0a\x20\x0a\x1e\x0a\x1c\x0a\x0cservice.name\x12\x06\x0a\x04cart", "looks like OTLP as protobuf"),
        (b"\x1f\x8b\x08\0", "is compressed by its producer"),
    ],
)
def test_binary_records_are_recognised(value: bytes, words: str) -> None:
    for form in ("json", "ndjson", "columnar", "counters"):
        # Lines of NDJSON are looked at one by one.
        if form != "ndjson" or b"\n" not in value:
            assert words in str(said(value, form))


@pytest.mark.parametrize("form", ["json", "ndjson", "json-array"])
def test_other_names_of_what_a_sample_lacks_are_named(form: Format) -> None:
    lacking = as_json(status=None, status_code=500, duration_ms=20)
    told = as_json()
    value = {"json": lacking, "ndjson": told + b"\n" + lacking, "json-array": b"[" + told + b"," + lacking + b"]"}[form]
    stage = Stage(form)
    stage.take([value])
    assert {(fault.kind, fault.field, fault.said, fault.samples) for fault in stage.faults.entries()} == {
        ("missing", "status", "the sample has `status_code`, not `status`", 1),
        ("missing", "latency_ms", "the sample has `duration_ms`, not `latency_ms`", 1),
    }


def test_a_sample_under_another_name_of_the_service_is_told() -> None:
    assert said(as_json(service=None, service_name="cart")) == [
        ("service", "the sample has `service_name`, not `service`")
    ]


def test_faults_are_bounded_whatever_is_sent() -> None:
    faults = Faults()
    for number in range(1000):
        faults.add("rejected", Why(f"measures.{number}", "is bad", shown("x" * 5000)))
    entries = faults.entries()
    assert len(entries) == MOST + 1
    assert sum(fault.samples for fault in entries) == 1000
    assert max(len(fault.example) for fault in entries) <= 120
    assert entries[0][:4] == ("rejected", "record", "has yet another fault", 1000 - MOST)


@pytest.mark.parametrize("value", [b"{" + b'"a":' * 5000, b"[" * 200_000, b'{"ts":' + b"9" * 10_000 + b"}"])
def test_reasons_are_short_whatever_is_sent(value: bytes) -> None:
    stage = Stage("json")
    stage.take([value])
    assert stage.rejects
    assert all(len(reason) <= 320 for reason in stage.reasons.values())
