"""The states of a trigger: ok, pending, firing, unknown. Time is an argument, and each row is on its own.

A condition must hold: it must be true at every evaluation from t0 until t - t0 reaches the hold; false clears it. That
is the rule of a Prometheus alert (rules/alerting.go: pending until `ts.Sub(ActiveAt) >= holdDuration`), with one
difference. In Prometheus a missing sample is false; here it is unknown, neither true nor false. Unknown stops the clock
of a held condition and hides a firing one; if it lasts longer than the grace, the condition is cleared. A grace of 0
clears at once, as Prometheus does.

A trigger may keep firing for a while after its condition was last true: `keep`, Prometheus' `keep_firing_for`, whose
clock starts at the first evaluation that is not true, and is strict: a keep of 5 s ends at the evaluation 5 s later.
It smooths what people see; a trigger that is merely kept firing causes no action.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int
from detectors.state import BEFORE, Arrays, checked_state

Int8 = NDArray[np.int8]


class State(IntEnum):
    """The state of a trigger. While its condition is unknown, one of the first three is kept beneath UNKNOWN."""

    OK = 0
    PENDING = 1
    FIRING = 2
    UNKNOWN = 3


UNKNOWN, FALSE, TRUE = -1, 0, 1
"""What a condition can be at an evaluation."""


class TriggerStates:
    """The states of n triggers; every array has shape (n,), times and spans are whole seconds.

    `states` holds values of `State`, at first UNKNOWN. `since` is t0, moved forward by the time spent unknown; BEFORE
    if nothing is held.
    """

    def __init__(self, hold: Int, grace: Int, keep: Int | None = None) -> None:
        """`hold` (`for` in the file) is how long a condition must be true, `grace` how long it may be unknown, `keep`
        (0 by default) how long it is kept firing."""
        self.hold = hold
        self.grace = grace
        self.keep = np.zeros(len(hold), dtype=np.int64) if keep is None else keep
        self.time = BEFORE
        self.states = np.full(len(hold), State.UNKNOWN, dtype=np.int8)
        self.since = np.full(len(hold), BEFORE, dtype=np.int64)
        self._remembered = np.full(len(hold), State.OK, dtype=np.int8)
        """OK, PENDING or FIRING of every trigger, known or not; `states` shows UNKNOWN over it."""
        self._last_known = np.full(len(hold), BEFORE, dtype=np.int64)
        """The last evaluation at which the condition was true or false: the grace counts from it."""
        self._kept_since = np.full(len(hold), BEFORE, dtype=np.int64)
        """When the condition of a firing trigger was first not true; BEFORE if it is true, or nothing is kept."""

    def update(self, t: int, truth: Int8) -> Int8:
        """Evaluate at time t: `truth` is TRUE, FALSE or UNKNOWN for every trigger. Return the states, a new array.

        An evaluation stands for the whole time since the one before. Raises ValueError if t is not later than the last.
        """
        if t <= self.time:
            raise ValueError(f"evaluation at {t} is not later than the last one at {self.time}")
        unknown, true = truth == UNKNOWN, truth == TRUE
        remembered = self._remembered
        over = (truth == FALSE) | (unknown & (t - self._last_known > self.grace))
        begins_keeping = over & (remembered == State.FIRING) & (self._kept_since == BEFORE)
        self._kept_since[begins_keeping] = t
        kept = (self._kept_since != BEFORE) & (t - self._kept_since < self.keep)
        remembered[over & ~kept] = State.OK
        self._kept_since[true | (remembered != State.FIRING)] = BEFORE

        self.since[unknown] += t - self.time
        self._last_known[~unknown] = t

        begins = true & (remembered == State.OK)
        self.since[begins] = t
        remembered[begins] = State.PENDING
        fires = true & (remembered == State.PENDING) & (t - self.since >= self.hold)
        remembered[fires] = State.FIRING

        self.since[remembered == State.OK] = BEFORE
        self.time = t
        self.states = np.where(unknown, np.int8(State.UNKNOWN), remembered)
        return self.states

    def state(self) -> Arrays:
        """Return copies of all its state."""
        return {
            "time": np.array(self.time),
            "state": self.states.copy(),
            "since": self.since.copy(),
            "remembered": self._remembered.copy(),
            "last_known": self._last_known.copy(),
            "kept_since": self._kept_since.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned. Raises StateError, and changes nothing, if it does not fit."""
        arrays = checked_state(state, self.state())
        self.time, self.states, self.since = int(arrays["time"]), arrays["state"], arrays["since"]
        self._remembered, self._last_known = arrays["remembered"], arrays["last_known"]
        self._kept_since = arrays["kept_since"]
