"""What came in the last minute and what was rejected of it, as a person is shown it."""

from __future__ import annotations

from streams.decode_columns import Reject
from streams.slices import Slice, Source
from streams.telemetry_counts import MAX_EXAMPLE, MAX_REASON, NOTHING, WITHIN, Count, TelemetryCounts

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
