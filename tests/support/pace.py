"""How long a flip may take in a test: as many tries as it says where a fault lasts, however busy the machine is."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from tenacity import RetryCallState

from agent.executor import budget
from agent.executor.budget import Budget


class Time(NamedTuple):
    """Seconds that a flip and a call of it may take, the latter being what a call that hangs takes.

    After `tries` tries the wait before the next one is longer than the rest of the time; 0 is no such end.
    """

    whole_s: float = 30.0
    call_s: float = 30.0
    tries: int = 0


AMPLE = Time()
"""For all that ends by itself, however busy the machine is."""


class Pace:
    """The time of every flip while it is patched in: `time`, which a test may change between two flips."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, time: Time = AMPLE) -> None:
        self.time = time
        self._jitter = budget._jitter
        monkeypatch.setattr(Budget, "of", lambda _: self._budget())
        monkeypatch.setattr(budget, "_jitter", self._wait)

    def _budget(self) -> Budget:
        return Budget(time.monotonic() + self.time.whole_s, self.time.call_s)

    def _wait(self, call: RetryCallState) -> float:
        tries = self.time.tries
        return self.time.whole_s if tries and call.attempt_number >= tries else self._jitter(call)
