"""Bytes on the commands topic that no known key has signed: anybody may write them, so few refusals are published.

All are counted. A flood of them must neither delay a real command nor fill the audit log.
"""

from __future__ import annotations

import time
from collections.abc import Callable

RATE = 1.0
BURST = 20.0
"""Refusals that are published: per second in the long run, and at once."""


class Untrusted:
    """Decides which refusals are published. `monotonic` is in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._monotonic = monotonic
        self._suppressed = 0
        self._allowance = BURST
        self._at = monotonic()

    def admit(self) -> int | None:
        """Count a refusal. If it is to be published, return how many were suppressed since the last one; else None."""
        self.count += 1
        now = self._monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._at) * RATE)
        self._at = now
        if self._allowance < 1:
            self._suppressed += 1
            return None
        self._allowance -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
