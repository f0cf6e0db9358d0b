"""Sample ratio mismatch: whether the observed shares of the variants fit the percentages of the flag.

If 10 % are set and 3 % arrive, comparing the variants means nothing: a targeting rule, a cache, or lost telemetry of a
crashing variant distorts it. Under the null hypothesis requests get variant i with probability theta_i, within
`tolerance` of the percentage rho_i. S_i requests of variant i were seen. The alternative is a mixture of all shares
with a uniform prior (Dirichlet, a_i = 1); it is divided by the likelihood of the most likely theta of the null
hypothesis:

    E = B(a + S) / B(a) / max over theta of prod theta_i^S_i,    B(a) = prod Gamma(a_i) / Gamma(sum a_i)

With tolerance 0 this is the test of Lindon and Malek; with a tolerance E is at most that of the true theta. In both
cases E reaches 1 / alpha with probability at most alpha, however often it is checked. A row restarts when its
percentages change. The tolerance is needed because requests are not independent: clients keep their variant, and of ten
clients seldom exactly one has it. A service of few clients needs a wider tolerance.

10 % are set with a tolerance of one point, and 3 % arrive:

>>> import numpy as np
>>> detector = SampleRatio(rows=1, variants=2, config=SampleRatioConfig())
>>> for second in range(6):
...     mismatch = detector.update(second, np.array([[3], [97]]), share=np.array([[0.1], [0.9]]))
...     print(second, mismatch[0], detector.evidence[0].round(2))
0 False -0.24
1 False 2.31
2 False 5.0
3 False 7.75
4 True 10.54
5 True 13.34

    Lindon, Malek: Anytime-valid inference for multinomial count data. NeurIPS 2022, arXiv:2011.03567.
    Wasserman, Ramdas, Balakrishnan: Universal inference. PNAS 117 (2020), for the composite null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.state import BEFORE, Arrays, checked_second, checked_state


@dataclass(frozen=True, slots=True)
class SampleRatioConfig:
    """`alpha` is the chance of a false alarm in a row between two changes of its percentages.

    `tolerance` (0..1) is how far a true share may lie from the percentage: 0.01 is one point.
    """

    alpha: float = 1e-4
    tolerance: float = 0.01


class SampleRatio:
    """The counts of n rows of k variants. Raises ValueError unless 0 < alpha < 1, 0 <= tolerance < 1 and k >= 2."""

    def __init__(self, rows: int, variants: int, config: SampleRatioConfig) -> None:
        if not (0 < config.alpha < 1 and 0 <= config.tolerance < 1 and variants >= 2):
            raise ValueError(f"alpha {config.alpha}, tolerance {config.tolerance}, {variants} variants")
        self.config = config
        self.bound = -log(config.alpha)
        self._second = BEFORE
        self._seen = np.zeros((variants, rows), dtype=np.int64)
        self._share = np.full((variants, rows), np.nan)
        # A result is final when its second is over: a second in several updates may cross the bound and come back.
        self._mismatch = np.zeros(rows, dtype=np.bool_)
        self._standing = np.zeros(rows, dtype=np.bool_)

    @property
    def evidence(self) -> Float:
        """log E of every row (n,), in nats; 0 if nothing was seen. It alarms at `bound`."""
        variants = len(self._seen)
        total = self._seen.sum(axis=0)
        # One call for all: Gamma of each a_i + S_i, then of their sum.
        gammas = log_gamma(np.concatenate([self._seen + 1.0, total[np.newaxis] + float(variants)]))
        mixture = gammas[:-1].sum(axis=0) - gammas[-1] + lgamma(variants)
        theta = _most_likely(self._seen, np.nan_to_num(self._share), self.config.tolerance)
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = np.where(self._seen > 0, self._seen * np.log(theta), 0.0).sum(axis=0)
        result: Float = mixture - likelihood
        return result

    def update(self, second: int, seen: Int, share: Float) -> Bool:
        """Add the requests of each variant in `second`, counts (k, n); return the rows (n,) whose shares do not fit.

        `share` (k, n) are the percentages as 0..1, of sum 1. A mismatch stays until the percentages change. Raises
        ValueError for invalid counts or shares, and for an earlier second than the last.
        """
        if seen.shape != self._seen.shape or share.shape != self._seen.shape or np.any(seen < 0):
            raise ValueError(f"counts and shares of shape {self._seen.shape}, none negative, are wanted")
        if not (np.all(share >= 0) and np.allclose(share.sum(axis=0), 1, rtol=0, atol=1e-9)):
            raise ValueError("the shares of a row are not negative and have the sum 1")
        if checked_second(second, self._second):
            self._second = second
            self._mismatch |= self._standing
        self.reset(np.any(share != self._share, axis=0))
        self._share = np.array(share, dtype=np.float64)
        self._seen += seen
        self._standing = self.evidence >= self.bound
        return self._mismatch | self._standing

    def reset(self, rows: Int | Bool) -> None:
        """Restart these rows."""
        self._seen[:, rows] = 0
        self._mismatch[rows] = self._standing[rows] = False

    def state(self) -> Arrays:
        """See `detectors.state.Detector`."""
        return {
            "second": np.array(self._second),
            "seen": self._seen.copy(),
            "share": self._share.copy(),
            "mismatch": self._mismatch.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `detectors.state.Detector`."""
        arrays = checked_state(state, self.state())
        self._second, self._seen = int(arrays["second"]), arrays["seen"]
        self._share, self._mismatch = arrays["share"], arrays["mismatch"]
        self._standing = self.evidence >= self.bound


def log_gamma(x: Float | float) -> Float:
    """Return log Gamma(x) for x >= 1, with an absolute or relative error below 1e-12; numpy has no such function.

    Stirling's series from 8 on, and Gamma(x) = Gamma(x + 7) / (x (x + 1) ... (x + 6)) below.

    >>> float(np.exp(log_gamma(6.0)).round(9))  # 5!
    120.0
    """
    value = np.asarray(x, dtype=np.float64)
    small = value < 8
    large = np.where(small, value + 7, value)
    product = np.ones_like(value)
    for i in range(7):
        product *= np.where(small, value + i, 1.0)
    square = 1 / (large * large)
    series = 1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square * (1 / 1188))))
    stirling: Float = (large - 0.5) * np.log(large) - large + 0.5 * log(2 * pi) + series / large
    return stirling - np.log(product)


def _most_likely(seen: Int, share: Float, tolerance: float) -> Float:
    """Return the theta (k, n) within `tolerance` of `share`, of sum 1, that makes `seen` most likely.

    It is seen / c, clipped to the band, with the one c that makes the sum 1. If clipping makes the sum too great, the
    values below the band are fixed at its edge, else those above; the others share the rest again, until all lie
    within.
    """
    low, high = np.maximum(share - tolerance, 0.0), np.minimum(share + tolerance, 1.0)
    theta: Float = seen / np.maximum(seen.sum(axis=0), 1)
    edge = np.zeros(seen.shape, dtype=np.bool_)
    for _ in range(len(seen)):
        within = np.clip(theta, low, high)
        stays = ~edge & np.where(within.sum(axis=0) >= 1, theta < low, theta > high)
        if not stays.any():
            break
        edge |= stays
        theta = np.where(stays, within, theta)
        rest = 1 - np.where(edge, theta, 0.0).sum(axis=0)
        free = np.where(edge, 0, seen)
        theta = np.where(edge, theta, free * (rest / np.maximum(free.sum(axis=0), 1)))
    return np.clip(theta, low, high)
