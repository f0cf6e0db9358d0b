"""Detects that a rate drifts from its baseline, with river's ADWIN or Page-Hinkley. A drift never causes a rollback.

A drift detector finds small and slow changes that no threshold names, and many that mean nothing: a service that fails
in bursts changes its rate every minute and is reported 130 to 180 times a day in `make bench-detect`. So a drift is
only published. It has a direction, because an improvement is a drift too.

The detectors get the residual of each second, in standard deviations. With x bad of n requests, and the baseline rate p
of that hour of the day, the residual is

    z = (x - n p) / sqrt(n p (1 - p)),    clipped to -5 .. 5

With the bare ratio x / n, one request of two would weigh as much as 500 of 1,000. The baseline removes the daily rise
and fall. Clipping keeps one bad second from being a drift: it takes five. A second with so few requests that a single
bad one is beyond chance is not judged.

- Page-Hinkley runs once for each direction, so the direction is known. With threshold 20 and tolerance 0.5 there is no
  alarm in 5 days of a steady service at 50 requests/s; a change by 1, 2, 4 standard deviations a second is found in 39,
  14, 6 s.
- ADWIN compares two parts of a window that it chooses, and finds these changes in 53, 20, 10 s. River checks every 32
  values by default, here every value. It gives no direction; here that is the direction of the last half minute against
  the window before. After a detection river drops the whole window, although its documentation says that it keeps a
  part, W1; so it starts again at the new level.

Both keep their state in river's own objects, not in the log. After a restart they learn again, for at least a minute.
River takes 3 s and 85 MB to import, so it is imported when the first watch is made.

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
MOST_RESIDUAL = 5.0
LEAST_VARIANCE = 0.1
"""Variance n p (1 - p) under which a second is not judged: one bad request in it is more than 3 standard deviations."""

RECENT_WEIGHT = 1 / 30
"""Weight of a second in the recent mean, which so covers half a minute."""


@dataclass(frozen=True, slots=True)
class DriftConfig:
    """Settings of a detector.

    `warm_up` is in seconds with traffic; `threshold` and `tolerance` belong to Page-Hinkley, `delta` to ADWIN.
    """

    method: Literal["page_hinkley", "adwin"] = "page_hinkley"
    warm_up: int = 60
    threshold: float = 20.0
    tolerance: float = 0.5
    delta: float = 1e-5


class Drift(NamedTuple):
    """The rate of `row` has drifted, which was detected at `second`.

    `residual` is the mean residual of the last half minute, `before` the mean before the change, both in standard
    deviations a second. `worse` says whether there are more bad requests than before, or fewer.
    """

    second: int
    row: int
    worse: bool
    residual: float
    before: float


class DriftWatch:
    """Watches n rates, each with its own baseline; it loops over them, 1 to 2 microseconds each.

    Raises ValueError if `baseline` is not of shape (24, n) with rates in 0..1, and DriftUnavailable without river.
    """

    def __init__(self, baseline: Float, config: DriftConfig) -> None:
        """`baseline` is the share of bad requests by hour of the day, UTC, shape (24, n)."""
        if baseline.ndim != 2 or len(baseline) != HOURS or not np.all((baseline >= 0) & (baseline <= 1)):
            raise ValueError(
                f"a baseline must have shape (24, rows) and values in 0..1; this one has shape {baseline.shape}"
            )
        # A rate of 0 has no variance, so the least rate is one in 100,000.
        self._baseline = np.clip(baseline, 1e-5, 1 - 1e-5)
        self._detectors = [_detector(config) for _ in range(baseline.shape[1])]
        self._recent = np.zeros(baseline.shape[1])

    def update(self, second: int, bad: Int, requests: Int) -> list[Drift]:
        """Take in the counts (n,) of a whole second; return the drifts detected in it, by row."""
        p = self._baseline[second // 3600 % HOURS]
        variance = requests * p * (1 - p)
        judged = np.flatnonzero(variance >= LEAST_VARIANCE)
        z = np.clip(
            (bad[judged] - requests[judged] * p[judged]) / np.sqrt(variance[judged]), -MOST_RESIDUAL, MOST_RESIDUAL
        )
        self._recent[judged] += RECENT_WEIGHT * (z - self._recent[judged])
        found = []
        for row, residual in zip(judged.tolist(), z.tolist(), strict=True):
            drift = self._detectors[row].update(residual, float(self._recent[row]))
            if drift is not None:
                worse, before = drift
                found.append(Drift(second, row, worse, float(self._recent[row]), before))
        return found


class _PageHinkley:
    def __init__(self, up: Any, down: Any) -> None:
        self._up, self._down = up, down
        self._sum, self._count = 0.0, 0

    def update(self, residual: float, recent: float) -> tuple[bool, float] | None:
        """Return whether the rate is worse, and the mean before; None if there is no drift."""
        before = self._sum / max(self._count, 1)
        self._sum += residual
        self._count += 1
        for detector, worse in ((self._up, True), (self._down, False)):
            detector.update(residual)
            if detector.drift_detected:
                # Both start again: the other has gathered its sum against the old level.
                self._up, self._down = self._up.clone(), self._down.clone()
                self._sum, self._count = 0.0, 0
                return worse, before
        return None


class _Adwin:
    def __init__(self, adwin: Any) -> None:
        self._adwin = adwin

    def update(self, residual: float, recent: float) -> tuple[bool, float] | None:
        """See `_PageHinkley.update`."""
        before = float(self._adwin.estimation)
        self._adwin.update(residual)
        return (recent > before, before) if self._adwin.drift_detected else None


def _detector(config: DriftConfig) -> _PageHinkley | _Adwin:
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
