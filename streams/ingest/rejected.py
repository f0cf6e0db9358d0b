"""The records of the rejected topic: telemetry that was not counted. Writing is rate-limited, counting is not."""

from __future__ import annotations

from collections import Counter

from streams.decoders.columns import Reject
from streams.slices import Slice

MAX_VALUE = 64 * 1024
"""Bytes of a rejected record that are kept, enough to recognise it."""

RATE = 100.0
BURST = 10_000.0
"""Records a second, and at once (a token bucket): a broken producer must not fill the disk."""


class RejectedLog:
    """Decides which rejected records are written, and counts all of them by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.suppressed = 0
        self._allowance = BURST
        self._at: float | None = None

    def record(self, slice_: Slice, reject: Reject, now: float) -> tuple[bytes, list[tuple[str, bytes]]] | None:
        """The value and headers to write, None if the rate is exceeded; `now` is in monotonic seconds."""
        self.counts[reject.kind] += 1
        elapsed = 0.0 if self._at is None else now - self._at
        self._at = now
        self._allowance = min(BURST, self._allowance + elapsed * RATE)
        if self._allowance < 1:
            self.suppressed += 1
            return None
        self._allowance -= 1
        value = slice_.values[slice_.offsets.index(reject.offset)] or b""
        headers = [
            ("topic", slice_.source.topic.encode()),
            ("partition", str(slice_.source.partition).encode()),
            ("offset", str(reject.offset).encode()),
            ("kind", reject.kind.encode()),
            ("reason", reject.reason.encode()),
            ("rows", str(reject.rows).encode()),
            ("bytes", str(len(value)).encode()),
        ]
        return value[:MAX_VALUE], headers
