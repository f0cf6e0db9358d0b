"""The current time, checked against other clocks: nothing is commanded by a wrong wall clock.

The wall clock is compared with the monotonic one at each look. A step of more than `TOLERANCE` is not followed at once:
it holds when other clocks (record times of telemetry, the brokers' time of an acknowledgement) agree with it, or,
where none speaks, when it has stood for `SETTLE`. Meanwhile the time goes on as before the step. Durations are
measured with the monotonic clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final, NamedTuple

TOLERANCE: Final = 0.5
"""Seconds that the wall clock may differ from the monotonic one without having been stepped."""
DOUBTED: Final = 2.0
"""Seconds between clocks from which nothing may be commanded; samples may be as much ahead of their record."""
SETTLE: Final = 10.0
"""Seconds after which a step holds that no other clock confirms or contradicts."""

_WITNESSES = 31
_WITNESS_AGE = 10.0


class Now(NamedTuple):
    """Unix seconds. What is before `time` may be closed; nothing after `latest` can have happened yet.

    The two are the same while the clocks agree. `doubt` says why nothing may be commanded by this time, and is empty
    otherwise. `monotonic` is the monotonic clock at this time.
    """

    time: float
    latest: float
    monotonic: float
    doubt: str = ""

    def at(self, monotonic: float) -> float:
        """The Unix time of an earlier instant of the monotonic clock."""
        return self.time - (self.monotonic - monotonic)


def instant(time: float) -> Now:
    """The Unix time `time` where nothing is in doubt, as in recordings."""
    return Now(time, time, time)


class Clock:
    """The time of one process; for the event loop's thread only.

    `wall` gives Unix seconds, `monotonic` seconds that never go back.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        # Every clock is kept as its difference from the monotonic one.
        self._trusted = wall() - monotonic()
        self._stepped: tuple[float, float] | None = None
        self._records: deque[float] = deque(maxlen=_WITNESSES)
        self._recorded_at = -_WITNESS_AGE
        self._broker: tuple[float, float] | None = None

    def recorded(self, at: float) -> None:
        """A record with the time `at` (Unix seconds, by its producer's clock) was appended just now."""
        mono = self._monotonic()
        self._records.append(at - mono)
        self._recorded_at = mono

    def acknowledged(self, at: float) -> None:
        """A broker stamped a record of ours with its own time `at` (Unix seconds) just now."""
        mono = self._monotonic()
        known = self._of_broker(mono)
        # An acknowledgement that lay about, as while the process was stopped, is older than it looks.
        if known is None or at - mono > known:
            self._broker = at - mono, mono

    def now(self) -> Now:
        before = self._monotonic()
        wall = self._wall()
        mono = self._monotonic()
        # A thread that lost the processor between two looks has seen no step.
        least, most = wall - mono - self._trusted, wall - before - self._trusted
        step = least if least > 0 else most if most < 0 else 0.0
        if abs(step) > TOLERANCE:
            return self._between(wall, mono, step)
        self._trusted += step
        self._stepped = None
        broker = self._of_broker(mono)
        if broker is None or abs(broker - self._trusted) <= DOUBTED:
            return Now(mono + self._trusted, mono + self._trusted, mono)
        return Now(
            mono + min(broker, self._trusted),
            mono + max(broker, self._trusted),
            mono,
            f"this machine's clock is {_apart(self._trusted - broker)} that of the brokers",
        )

    def _between(self, wall: float, mono: float, step: float) -> Now:
        """The time after a step that is not settled."""
        stepped = wall - mono
        if self._stepped is None or abs(stepped - self._stepped[0]) > TOLERANCE:
            self._stepped = stepped, mono
        witness = self._witness(mono)
        # Producers may write some time after what they report; that is little beside a step that matters.
        near = max(DOUBTED, abs(step) / 4)
        confirms = witness is not None and abs(witness - stepped) <= near
        denies = witness is not None and abs(witness - self._trusted) <= near
        if confirms and denies and witness is not None:
            confirms = abs(witness - stepped) < abs(witness - self._trusted)
            denies = not confirms
        if confirms or (not denies and mono - self._stepped[1] >= SETTLE):
            self._trusted, self._stepped = stepped, None
            return self.now()
        doubt = f"this machine's clock was set {_apart(step, '')}" if abs(step) > DOUBTED else ""
        trusted = mono + self._trusted
        return Now(trusted if denies else min(trusted, wall), max(trusted, wall), mono, doubt)

    def _witness(self, mono: float) -> float | None:
        """What other clocks say: the brokers', else the median of what producers stamped last."""
        broker = self._of_broker(mono)
        if broker is not None:
            return broker
        if not self._records or mono - self._recorded_at > _WITNESS_AGE:
            return None
        return median(self._records)

    def _of_broker(self, mono: float) -> float | None:
        if self._broker is None or mono - self._broker[1] > _WITNESS_AGE:
            return None
        return self._broker[0]


def _apart(seconds: float, of: str = " of") -> str:
    return f"{abs(seconds):.0f} s {'ahead' + of if seconds > 0 else 'behind' if of else 'back'}"
