"""The time limits of flips in tests. A flip ends after a number of tries, so that a busy machine changes no result."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from tenacity import RetryCallState

from agent.executor import budget
from agent.executor.budget import Budget


class Time(NamedTuple):
    """Maximum seconds of a flip (`whole_s`) and of one call (`call_s`), after which a call that hangs is given up.

    After `tries` tries the wait before the next one exceeds the rest of the time, which ends the flip; 0 stands for no
    limit.
    """

    whole_s: float = 30.0
    call_s: float = 30.0
    tries: int = 0


AMPLE = Time()
"""For flips that end by themselves: more than a busy machine needs."""


class Pace:
    """Patches the budget of every flip with `time`, which a test may change between two flips."""

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
