"""The current time, checked against other clocks: nothing is commanded by a wrong wall clock.

`Clock.now` compares the wall clock with the monotonic clock. It does not follow a step of more than `TOLERANCE` at
once. It accepts the step if other clocks agree with it (record times of telemetry, the brokers' times of
acknowledgements), or, without other clocks, after `SETTLE`. Until then the time continues as before the step. Durations
are measured with the monotonic clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final, NamedTuple

TOLERANCE: Final = 0.5
"""Seconds by which the wall clock may differ from the monotonic one before it counts as stepped."""
MAX_DIFFERENCE: Final = 2.0
"""Seconds between two clocks above which nothing may be commanded; samples may be this much ahead of their record."""
SETTLE: Final = 10.0
"""Seconds after which a step is accepted that no other clock confirms or contradicts."""

_KEPT_RECORDS = 31
_MAX_AGE = 10.0
"""Seconds for which the last times of other clocks are used."""


class Now(NamedTuple):
    """The current time in Unix seconds: at least `time` and at most `latest`, which are equal while the clocks agree.

    Seconds before `time` may be closed; a sample after `latest` is from the future. `problem` is empty, or says why
    nothing may be commanded by this time. `monotonic` is the monotonic clock at this time.
    """

    time: float
    latest: float
    monotonic: float
    problem: str = ""

    def at(self, monotonic: float) -> float:
        """The Unix time of an earlier instant of the monotonic clock."""
        return self.time - (self.monotonic - monotonic)


def instant(time: float) -> Now:
    """The Unix time `time`, known exactly, as in recordings."""
    return Now(time, time, time)


class Clock:
    """The time of one process; not thread-safe.

    `wall` returns Unix seconds, `monotonic` seconds that never go back.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        # Every other clock is stored as its difference from the monotonic clock.
        self._trusted = wall() - monotonic()
        self._stepped: tuple[float, float] | None = None
        self._records: deque[float] = deque(maxlen=_KEPT_RECORDS)
        self._recorded_at = -_MAX_AGE
        self._broker: tuple[float, float] | None = None

    def recorded(self, at: float) -> None:
        """Note that a record with the time `at` (Unix seconds, by its producer's clock) was appended just now."""
        mono = self._monotonic()
        self._records.append(at - mono)
        self._recorded_at = mono

    def acknowledged(self, at: float) -> None:
        """Note that a broker gave a record of this process its own time `at` (Unix seconds) just now."""
        mono = self._monotonic()
        known = self._broker_offset(mono)
        # An acknowledgement that waited, for example while the process was stopped, gives a difference that is too
        # small, so the largest one is kept.
        if known is None or at - mono > known:
            self._broker = at - mono, mono

    def now(self) -> Now:
        """The current time; see the module for steps of the wall clock."""
        before = self._monotonic()
        wall = self._wall()
        mono = self._monotonic()
        # If the thread was suspended between the three readings, the difference is uncertain: a step is what both
        # bounds of it show.
        least, most = wall - mono - self._trusted, wall - before - self._trusted
        step = least if least > 0 else most if most < 0 else 0.0
        if abs(step) > TOLERANCE:
            return self._after_step(wall, mono, step)
        self._trusted += step
        self._stepped = None
        broker = self._broker_offset(mono)
        if broker is None or abs(broker - self._trusted) <= MAX_DIFFERENCE:
            return Now(mono + self._trusted, mono + self._trusted, mono)
        return Now(
            mono + min(broker, self._trusted),
            mono + max(broker, self._trusted),
            mono,
            f"this machine's clock is {_difference(self._trusted - broker)} that of the brokers",
        )

    def _after_step(self, wall: float, mono: float, step: float) -> Now:
        """The time after a step of the wall clock that has not been accepted yet."""
        stepped = wall - mono
        if self._stepped is None or abs(stepped - self._stepped[0]) > TOLERANCE:
            self._stepped = stepped, mono
        other = self._other_clock(mono)
        # Producers may write a record some time after the time that it carries, so a quarter of the step is tolerated.
        near = max(MAX_DIFFERENCE, abs(step) / 4)
        confirms = other is not None and abs(other - stepped) <= near
        denies = other is not None and abs(other - self._trusted) <= near
        if confirms and denies and other is not None:
            confirms = abs(other - stepped) < abs(other - self._trusted)
            denies = not confirms
        if confirms or (not denies and mono - self._stepped[1] >= SETTLE):
            self._trusted, self._stepped = stepped, None
            return self.now()
        problem = f"this machine's clock was set {_difference(step, '')}" if abs(step) > MAX_DIFFERENCE else ""
        trusted = mono + self._trusted
        return Now(trusted if denies else min(trusted, wall), max(trusted, wall), mono, problem)

    def _other_clock(self, mono: float) -> float | None:
        """The brokers' clock, else the median of the producers' newest times; None if neither is recent."""
        broker = self._broker_offset(mono)
        if broker is not None:
            return broker
        if not self._records or mono - self._recorded_at > _MAX_AGE:
            return None
        return median(self._records)

    def _broker_offset(self, mono: float) -> float | None:
        if self._broker is None or mono - self._broker[1] > _MAX_AGE:
            return None
        return self._broker[0]


def _difference(seconds: float, of: str = " of") -> str:
    return f"{abs(seconds):.0f} s {'ahead' + of if seconds > 0 else 'behind' if of else 'back'}"
