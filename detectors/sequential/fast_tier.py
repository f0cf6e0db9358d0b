"""Fast tier: detects a gross failure within seconds, with a stated mean time between false alarms.

In every second x of n requests are bad. The null hypothesis is that the rate is at most r0. The statistic restarts its
evidence every second, so that good hours do not weigh against a bad second:

    M <- (M + 1) e(x, n; r0)          e is an e-value, see detectors.sequential.evalues
    alarm when M >= gamma

Under the null E[e] <= 1, so M minus the number of seconds is a supermartingale: the mean time to a false alarm is at
least gamma seconds, whatever the rate does at or under r0 and however many requests there are. A second without
requests does not count: it adds nothing, so silence alone never alarms. The alternatives are several factors on the
odds, each with its own M; the alarm is on their mean, which has the same property.

The bound on false alarms holds for the rate of each second. If an instance dies and thirty requests fail with it, that
second is above r0 and alarms. So r0 must be the rate of the worse healthy minutes of the service
(detectors.sequential.healthy_rate), and higher if requests fail together in single seconds.

No detector with that gamma can detect a true rate p in fewer than about log(gamma) / KL(p, r0) requests (Lorden 1971),
KL(p, q) = p log(p/q) + (1-p) log((1-p)/(1-q)). This one needs 1.0 to 1.5 times that, and the end of the second.

50 requests/s, r0 = 2 %, one false alarm in 30 days. Half of the requests fail from second 3 on:

>>> import numpy as np
>>> detector = FastTier(1, FastTierConfig())
>>> for second, bad in enumerate([0, 1, 0, 25, 24]):
...     alarm = detector.update(second, np.array([bad]), np.array([50]), r0=0.02)
...     print(second, alarm[0], detector.evidence[0].round(1))
0 False -2.2
1 False -1.3
2 False -1.4
3 True 61.8
4 True 74.6
>>> round(detector.bound, 1)  # evidence, in nats, that alarms: log(gamma)
14.8

    Shiryaev: On optimum methods in quickest detection problems. Theory of Probability 8 (1963).
    Roberts: A comparison of some control chart procedures. Technometrics 8 (1966).
    Lorden: Procedures for reacting to a change in distribution. Annals of Mathematical Statistics 42 (1971).
    Shin, Ramdas, Rinaldo: E-detectors: a nonparametric framework for sequential change detection. arXiv:2203.03532.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.sequential.evalues import checked_counts, checked_odds, log_evalues, log_mean
from detectors.state import BEFORE, Arrays, checked_second, checked_state


@dataclass(frozen=True, slots=True)
class FastTierConfig:
    """`gamma` is the mean number of seconds between false alarms of one row, `odds` the factors on the odds of r0."""

    gamma: float = 30 * 86_400
    odds: tuple[float, ...] = (1.5, 3, 6, 12, 25, 50, 100)


class FastTier:
    """The statistics of n rows. Raises ValueError if gamma is less than 1 or a factor is not greater than 1."""

    def __init__(self, rows: int, config: FastTierConfig) -> None:
        if config.gamma < 1:
            raise ValueError(f"gamma is {config.gamma}; a mean time between false alarms is at least 1 second")
        self.config = config
        self.bound = log(config.gamma)
        self._log_odds = checked_odds(config.odds)
        self._second = BEFORE
        self._log_m = np.full((len(config.odds), rows), -np.inf)
        self._looked = np.zeros(rows, dtype=np.bool_)

    @property
    def evidence(self) -> Float:
        """log M of every row, in nats; minus infinity before its first request. It alarms at `bound`."""
        return log_mean(self._log_m)

    def update(self, second: int, bad: Int, requests: Int, r0: Float | float) -> Bool:
        """Add the counts of `second`; return which rows (n,) alarm. An alarm lasts as long as its evidence is at the
        bound.

        `bad` and `requests` are counts (n,); r0 is 0..1, one for all or (n,), and must not depend on this second's
        counts. Raises ValueError for invalid counts or rates, and for an earlier second than the last.
        """
        rows = self._log_m.shape[1]
        checked_counts(bad, requests, rows)
        # Written so that nan fails too.
        if not np.all((np.asarray(r0) >= 0) & (np.asarray(r0) <= 1)):
            raise ValueError("r0 is not between 0 and 1")
        if checked_second(second, self._second):
            self._second = second
            self._looked[:] = False
        seen = requests > 0
        # Evidence is capped between seconds, so that an alarm ends soon after its failure. The cap is k gamma: then a
        # single one of the k statistics still lifts the mean to the bound.
        most = self.bound + log(len(self._log_odds))
        begun = np.logaddexp(np.minimum(self._log_m, most), 0.0, where=seen & ~self._looked, out=self._log_m.copy())
        self._looked |= seen
        self._log_m = begun + log_evalues(bad, requests, r0, self._log_odds)
        return self.evidence >= self.bound

    def reset(self, rows: Int | Bool) -> None:
        """Discard the evidence of these rows, as for a new version of a flag."""
        self._log_m[:, rows] = -np.inf
        self._looked[rows] = False

    def state(self) -> Arrays:
        """See `detectors.state.Detector`."""
        return {"second": np.array(self._second), "log_m": self._log_m.copy(), "looked": self._looked.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `detectors.state.Detector`."""
        arrays = checked_state(state, self.state())
        self._second, self._log_m, self._looked = int(arrays["second"]), arrays["log_m"], arrays["looked"]
