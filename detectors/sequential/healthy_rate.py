"""The rate of bad requests in the worse healthy minutes of a service, learnt from its last day.

Healthy services fail in bursts: a mean of 0.5 % may include minutes of 3 %. With a null rate r0 below those minutes,
the fast tier would correctly alarm in each of them. So r0 is the greater of the trigger's threshold and

    min(cap, quantile of the healthy per-minute rate that is exceeded once in 100,000 minutes)

A day has 1,440 minutes, so the quantile is that of a fitted tail. In minute i, x_i of n_i requests are bad; p_i, the
minute's true rate, has mean m and variance v, and x_i is binomial given p_i. By moments (Kleinman 1973, weights n_i):

    m = X / N,  v = (S - (k - 1) m (1 - m)) / (N - N2 / N - (k - 1)),  S = sum of x_i^2 / n_i - X^2 / N

over k minutes, N = sum n_i, X = sum x_i, N2 = sum n_i^2; the scatter of chance alone is subtracted from v. The tail is
log-normal with that mean and variance: it is heavier than that of a beta distribution with the same moments, so the
quantile holds for both; and it has a closed form, m exp(z s - s^2 / 2), s^2 = log(1 + v / m^2).

Until an hour of minutes is known, r0 is the cap, because nothing is known about bursts. Failures must not be learnt as
healthy: a minute waits in `quarantine` before it counts. While a trigger is pending no minute is admitted, and when one
fires all waiting minutes are discarded. But a burst that was pending and passed is healthy and counts: without such
bursts the tail that r0 is fitted to would be cut off. A row keeps five sums for each of 24 hours, and the minutes in
quarantine: about 1 kB. The day moves by whole hours, so it holds 23 to 24 of them.

One row has 3,000 requests a minute, of which 15 are bad, and 60 in each tenth minute:

>>> import numpy as np
>>> healthy = HealthyRate(1, HealthyRateConfig())
>>> quiet = np.array([False])
>>> for minute in range(1000):
...     bad = np.array([60 if minute % 10 == 0 else 15])
...     healthy.update(60 * minute, bad, np.array([3000]), pending=quiet, firing=quiet)
>>> healthy.mean.round(4), healthy.deviation.round(4)
(array([0.0065]), array([0.0043]))
>>> healthy.rate(0.02).round(3)
array([0.07])

    Kleinman: Proportions with extraneous variance: single and independent samples. JASA 68 (1973).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.sequential.evalues import checked_counts
from detectors.state import BEFORE, Arrays, checked_second, checked_state

MINUTE = 60
HOURS = 24
_K, _N, _X, _XX, _NN = range(5)


@dataclass(frozen=True, slots=True)
class HealthyRateConfig:
    """`cap` (0..1) is the highest rate that counts as healthy, `tail` the share of healthy minutes above r0.

    `least` is the number of minutes below which r0 stays at the cap; `quarantine` is how many minutes wait before they
    count.
    """

    cap: float = 0.10
    tail: float = 1e-5
    least: int = 60
    quarantine: int = 5


class HealthyRate:
    """The healthy rates of n rows. `mean` and `deviation` (n,) are those of the per-minute rate, 0..1; 0 if nothing is
    known.

    Raises ValueError for a cap or tail outside 0..1 (both ends excluded), or less than one minute of quarantine.
    """

    def __init__(self, rows: int, config: HealthyRateConfig) -> None:
        if not (0 < config.cap < 1 and 0 < config.tail < 1):
            raise ValueError(f"cap {config.cap} and tail {config.tail} must lie between 0 and 1")
        if config.quarantine < 1:
            raise ValueError(f"quarantine is {config.quarantine}; at least 1 minute must wait")
        self.config = config
        self._z = NormalDist().inv_cdf(1 - config.tail)
        self._second = BEFORE
        self._bad = np.zeros(rows, dtype=np.int64)
        self._requests = np.zeros(rows, dtype=np.int64)
        self._pending = np.zeros(rows, dtype=np.bool_)
        self._firing = np.zeros(rows, dtype=np.bool_)
        self._waiting = np.zeros((config.quarantine, 2, rows), dtype=np.int64)
        self._sums = np.zeros((HOURS, 5, rows))
        self._hour_of = np.full(HOURS, BEFORE, dtype=np.int64)
        self._fit()

    def update(self, second: int, bad: Int, requests: Int, pending: Bool, firing: Bool) -> None:
        """Add the counts (n,) of `second`; `pending` and `firing` (n,) say whether any trigger of the row is in that
        state.

        The rate changes only when a minute ends, so the rate of a second never depends on its own counts. Raises
        ValueError for invalid counts and for an earlier second than the last.
        """
        checked_counts(bad, requests, len(self._bad))
        last = self._second
        if checked_second(second, last):
            self._second = second
            if last != BEFORE and second // MINUTE != last // MINUTE:
                self._close(last // MINUTE)
        self._bad += bad
        self._requests += requests
        self._pending |= pending
        self._firing |= firing

    def rate(self, threshold: Float | float) -> Float:
        """Return r0 (n,): the learnt rate, but not above the cap and not below `threshold`, one for all or (n,)."""
        return np.maximum(self._learnt, threshold)

    def reset(self, rows: Int | Bool) -> None:
        """Discard everything that these rows have learnt."""
        self._bad[rows] = self._requests[rows] = 0
        self._pending[rows] = self._firing[rows] = False
        self._waiting[:, :, rows] = 0
        self._sums[:, :, rows] = 0
        self._fit()

    def _close(self, minute: int) -> None:
        """End `minute`: admit the minute that leaves the quarantine and put this one in."""
        slot, hour = self._waiting[minute % self.config.quarantine], minute // MINUTE
        block = self._sums[hour % HOURS]
        if self._hour_of[hour % HOURS] != hour:
            self._hour_of[hour % HOURS] = hour
            block[:] = 0
        slot[:, self._pending | self._firing] = 0
        x, n = slot.astype(np.float64)
        some = n > 0
        block[_K] += some
        block[_N] += n
        block[_X] += x
        block[_XX] += np.divide(x * x, n, where=some, out=np.zeros_like(x))
        block[_NN] += n * n
        slot[0], slot[1] = self._bad, self._requests
        self._waiting[:, :, self._firing] = 0
        self._bad[:] = self._requests[:] = 0
        self._pending[:] = self._firing[:] = False
        self._fit()

    def _fit(self) -> None:
        """Fit mean, deviation and the tail quantile to the sums of the last day, as the module describes."""
        now = self._second // (MINUTE * MINUTE)
        k, n, x, xx, nn = self._sums[self._hour_of > now - HOURS].sum(axis=0)
        mean = np.divide(x, n, where=n > 0, out=np.zeros_like(x))
        scatter = xx - x * mean
        weight = n - np.divide(nn, n, where=n > 0, out=np.zeros_like(n)) - (k - 1)
        # If every minute has one request, the variance between minutes cannot be estimated.
        variance = np.divide(scatter - (k - 1) * mean * (1 - mean), weight, where=weight > 0, out=np.zeros_like(x))
        self.mean, self.deviation = mean, np.sqrt(np.maximum(variance, 0.0))
        ratio = np.divide(self.deviation, mean, where=mean > 0, out=np.zeros_like(x))
        spread = np.log1p(ratio * ratio)
        quantile = mean * np.exp(self._z * np.sqrt(spread) - spread / 2)
        self._learnt = np.where(k >= self.config.least, np.minimum(quantile, self.config.cap), self.config.cap)

    def state(self) -> Arrays:
        """See `detectors.state.Detector`."""
        return {
            "second": np.array(self._second),
            "bad": self._bad.copy(),
            "requests": self._requests.copy(),
            "pending": self._pending.copy(),
            "firing": self._firing.copy(),
            "waiting": self._waiting.copy(),
            "sums": self._sums.copy(),
            "hour_of": self._hour_of.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `detectors.state.Detector`."""
        arrays = checked_state(state, self.state())
        self._second = int(arrays["second"])
        self._bad, self._requests = arrays["bad"], arrays["requests"]
        self._pending, self._firing = arrays["pending"], arrays["firing"]
        self._waiting, self._sums, self._hour_of = arrays["waiting"], arrays["sums"], arrays["hour_of"]
        self._fit()
