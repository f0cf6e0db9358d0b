"""The samples of the last minute and the rejected ones among them, as people see them."""

from __future__ import annotations

import logging

from agent.events.severity import level
from agent.telemetry.watch import TelemetryWatch, told
from streams.decoders.columns import Reject
from streams.decoders.faults import Fault, FaultKind
from streams.ingest.telemetry_counts import MAX_EXAMPLE, MAX_REASON, NOTHING, WITHIN, Count, Telemetry, TelemetryCounts
from streams.slices import Slice, Source

SOURCE = Source("requests", 3)


def slice_of(*values: bytes) -> Slice:
    return Slice(SOURCE, list(values), list(range(10, 10 + len(values))), [0] * len(values), {})


def reject(offset: int, reason: str = "no time", rows: int = 1) -> Reject:
    return Reject(SOURCE, offset, "invalid", reason, rows)


def test_samples_of_the_last_minute_are_counted_and_older_ones_forgotten() -> None:
    now = 100.0
    counts = TelemetryCounts(lambda: now)
    counts.add(slice_of(b"{}", b"{}"), 2, [])
    now += 30
    counts.add(slice_of(b"{}", b"bad"), 7, [reject(11, rows=3)])
    assert counts.recent() == {"requests": Count(12, 3, "no time", "bad")}
    now += WITHIN - 29
    assert counts.recent() == {"requests": Count(10, 3, "no time", "bad")}
    now += 31
    assert counts.recent() == {"requests": NOTHING}


def test_the_newest_rejected_record_is_the_example_and_harms_no_terminal() -> None:
    counts = TelemetryCounts(lambda: 0.0)
    counts.add(slice_of(b"one", b"\x1b[2J" + b"x" * 5000), 0, [reject(10), reject(11, "r" * 5000)])
    found = counts.recent()["requests"]
    assert (len(found.reason), len(found.example)) == (MAX_REASON, MAX_EXAMPLE)
    assert found.example.startswith("\\x1b[2Jxxx")
    assert found.example.isprintable()


def fault(kind: FaultKind, field: str, samples: int = 1) -> Fault:
    return Fault(kind, field, "is wrong", samples, "7")


def test_faults_of_the_last_minute_are_told_the_most_frequent_first() -> None:
    now = 100.0
    counts = TelemetryCounts(lambda: now)
    counts.add(slice_of(b"{}"), 1, [], [fault("dropped", "latency_ms")], no_outcome=1)
    now += 30
    counts.add(slice_of(b"{}"), 1, [reject(10)], [fault("rejected", "ts", 5), fault("dropped", "latency_ms")])
    (told,) = counts.telemetry()
    assert told == Telemetry(
        topic="requests",
        received=3,
        rejected=1,
        no_outcome=1,
        faults=(fault("rejected", "ts", 5), fault("dropped", "latency_ms", 2)),
    )
    now += WITHIN - 29
    (told,) = counts.telemetry()
    assert (told.no_outcome, told.faults[1]) == (0, fault("dropped", "latency_ms"))


def test_a_topic_is_told_at_once_and_then_once_a_minute_while_it_is_faulty() -> None:
    watch, bad = TelemetryWatch(), telemetry_of(fault("rejected", "ts"))
    assert [event.subject for event in watch.events([bad], now=5.0, at=1e9)] == ["requests"]
    assert watch.events([bad], now=5.0 + WITHIN - 1, at=1e9) == []
    assert len(watch.events([bad], now=5.0 + WITHIN, at=1e9)) == 1


def test_what_often_means_something_else_is_no_reason_to_tell() -> None:
    assert TelemetryWatch().events([telemetry_of(fault("dropped", "id"))], now=5.0, at=1e9) == []
    assert TelemetryWatch().events([telemetry_of()], now=5.0, at=1e9) == []


def test_the_event_warns_and_says_what_is_wrong_with_an_example() -> None:
    (event,) = TelemetryWatch().events([telemetry_of(fault("rejected", "ts", 1950))], now=5.0, at=1e9)
    assert event.type == "flipback.telemetry.rejected"
    assert level(event) == logging.WARNING
    assert event.data["reason"] == "ts: is wrong, such as 7 (1,950 samples, rejected)"
    assert (event.data["received"], event.data["rejected"]) == (2000, 1950)


def telemetry_of(*faults: Fault) -> Telemetry:
    return Telemetry(topic="requests", received=2000, rejected=1950, no_outcome=0, faults=faults)


def test_a_fault_is_a_line_for_people() -> None:
    missing = Fault("missing", "status", "the sample has `status_code`, not `status`", 1600, "")
    assert told(missing) == "status: the sample has `status_code`, not `status` (1,600 samples, which lack it)"
    assert told(fault("dropped", "latency_ms")) == "latency_ms: is wrong, such as 7 (1 samples, counted without it)"
