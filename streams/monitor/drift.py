"""Has a rate changed against its own habit? River's ADWIN and Page-Hinkley, one adapter. Never a reason to roll back.

A drift detector finds small and slow changes that no threshold names, and finds many that mean nothing: a service that
fails in bursts changes its rate each minute, and is told of 130 to 180 times a day in `make bench-detect`. So what it
says may hold a rollout back or be shown, and it says in which direction: an improvement is a drift too.

What is watched is each second's residual, in units of chance. With x bad of n requests, and a baseline rate p of that
hour of the day, it is

    z = (x - n p) / sqrt(n p (1 - p)),    moved into -5 .. 5

Fed with the bare ratio x / n, a detector takes one request of two for as much as 500 of 1,000. The baseline takes the
day's own rise and fall out; the limits keep one bad second from being a drift: it takes five. A second of so few
requests that a single bad one is beyond chance is not judged.

- Page-Hinkley is run once for each direction, which it then knows. Threshold 20 and tolerance 0.5: no alarm in 5 days
  of a steady service at 50 requests/s; a change by 1, 2, 4 units of chance a second is found in 39, 14, 6 s.
- ADWIN compares two parts of a window that it chooses, 53, 20, 10 s. River checks for that every 32 values unless told
  otherwise, and says nothing of direction: here it is that of the last half minute against the window before. After a
  detection river forgets the whole window, whatever its documentation says of W1, and so begins anew with the new
  level.

Both are remembered in river's own objects, not in the log; after a restart they learn anew, for a minute at least.
River takes 3 s and 85 MB to import, so that it is imported when the first watch is made.

    Bifet, Gavalda: Learning from time-changing data with adaptive windowing. SIAM Data Mining 2007.
    Page: Continuous inspection schemes. Biometrika 41 (1954).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from detectors.arrays import Float, Int
from streams.errors import DriftUnavailable

HOURS = 24
LIMIT = 5.0
LEAST = 0.1
"""Variance n p (1 - p) under which a second is not judged: one bad request of it is more than 3 units of chance."""

RECENT = 1 / 30
"""Weight of a second in the recent mean: half a minute."""


@dataclass(frozen=True, slots=True)
class DriftConfig:
    """`warm_up` is in seconds with traffic; `threshold` and `tolerance` are Page-Hinkley's, `delta` is ADWIN's."""

    method: Literal["page_hinkley", "adwin"] = "page_hinkley"
    warm_up: int = 60
    threshold: float = 20.0
    tolerance: float = 0.5
    delta: float = 1e-5


class Drift(NamedTuple):
    """The rate of `row` drifted, told at `second`; `residual` is the mean of the last half minute, `before` what it
    was.

    Both are in units of chance a second. `worse` says whether more of the bad is seen, or less.
    """

    second: int
    row: int
    worse: bool
    residual: float
    before: float


class DriftWatch:
    """Watches n rows, each with a baseline of its own; it loops over them, 1 to 2 microseconds each.

    Raises ValueError when `baseline` is not (24, n) of rates in 0..1, and DriftUnavailable without river.
    """

    def __init__(self, baseline: Float, config: DriftConfig) -> None:
        """`baseline` is the share of bad requests by hour of the day, UTC, shape (24, n)."""
        if baseline.ndim != 2 or len(baseline) != HOURS or not np.all((baseline >= 0) & (baseline <= 1)):
            raise ValueError(f"a baseline of shape (24, rows), 0..1, is wanted; it has shape {baseline.shape}")
        # A rate of nothing has no variance: one in 100,000 is taken for the least.
        self._baseline = np.clip(baseline, 1e-5, 1 - 1e-5)
        self._voices = [_voice(config) for _ in range(baseline.shape[1])]
        self._recent = np.zeros(baseline.shape[1])

    def update(self, second: int, bad: Int, requests: Int) -> list[Drift]:
        """Tell what `second` brought, counts (n,) of the whole second; return what drifted, by row."""
        p = self._baseline[second // 3600 % HOURS]
        variance = requests * p * (1 - p)
        judged = np.flatnonzero(variance >= LEAST)
        z = np.clip((bad[judged] - requests[judged] * p[judged]) / np.sqrt(variance[judged]), -LIMIT, LIMIT)
        self._recent[judged] += RECENT * (z - self._recent[judged])
        found = []
        for row, residual in zip(judged.tolist(), z.tolist(), strict=True):
            drift = self._voices[row].update(residual, float(self._recent[row]))
            if drift is not None:
                worse, before = drift
                found.append(Drift(second, row, worse, float(self._recent[row]), before))
        return found


class _PageHinkley:
    def __init__(self, up: Any, down: Any) -> None:
        self._up, self._down = up, down
        self._sum, self._count = 0.0, 0

    def update(self, residual: float, recent: float) -> tuple[bool, float] | None:
        """Whether it is worse, and the mean before; None where there is no drift."""
        before = self._sum / max(self._count, 1)
        self._sum += residual
        self._count += 1
        for voice, worse in ((self._up, True), (self._down, False)):
            voice.update(residual)
            if voice.drift_detected:
                # Both begin anew: what the other has gathered is against the old level.
                self._up, self._down = self._up.clone(), self._down.clone()
                self._sum, self._count = 0.0, 0
                return worse, before
        return None


class _Adwin:
    def __init__(self, adwin: Any) -> None:
        self._adwin = adwin

    def update(self, residual: float, recent: float) -> tuple[bool, float] | None:
        """As that of Page-Hinkley."""
        before = float(self._adwin.estimation)
        self._adwin.update(residual)
        return (recent > before, before) if self._adwin.drift_detected else None


def _voice(config: DriftConfig) -> _PageHinkley | _Adwin:
    drift = _river()
    if config.method == "adwin":
        return _Adwin(drift.ADWIN(delta=config.delta, clock=1, grace_period=config.warm_up))

    def one(mode: str) -> Any:
        return drift.PageHinkley(
            min_instances=config.warm_up,
            delta=config.tolerance,
            threshold=config.threshold,
            alpha=1.0,
            mode=mode,
        )

    return _PageHinkley(one("up"), one("down"))


def _river() -> Any:
    try:
        from river import drift
    except ImportError as error:
        raise DriftUnavailable("detecting drift needs the library river: pip install 'flipback[drift]'") from error
    return drift
