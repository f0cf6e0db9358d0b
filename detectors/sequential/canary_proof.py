"""Proof tier: is the canary worse than the control? Valid at every second, whatever happens to both.

If canary and control fail alike, a bad request is the canary's with probability rho, the canary's share of the
requests, however high the common rate is and however it moves: an outage that hits both arms is no evidence. If the
canary's rate lc is above the control's lk, it is the canary's with a greater probability,

    theta = rho lc / (rho lc + (1 - rho) lk)

whose odds are w = lc / lk times those of rho. If x of the b bad requests of a second are the canary's, the e-value of
the null hypothesis lc <= lk is w^x / (1 - rho + w rho)^b, as in `detectors.sequential.evalues`. Seconds multiply; the
mean over several w is a nonnegative supermartingale under the null, so that with probability 1 - alpha it never reaches
1 / alpha (Ville 1939): checking it every second is valid. A proven row stays proven until it is reset; each stage of a
rollout resets it and has its own alpha. The share may change from second to second, as when the percentage is raised.

The share must not depend on which requests failed: it is the configured percentage, or the canary's share of the
requests. And requests must fail independently: if the same client retries each failure twice, so that failures come in
threes, 7 % of the stages of an hour at 50 requests/s end in a false proof instead of 0.1 %. Count first attempts.

The canary has 10 % of the requests. In each second it has 1 bad request, and so has the control:

>>> import numpy as np
>>> detector = CanaryProof(1, CanaryProofConfig())
>>> for second in range(9):
...     proven = detector.update(second, np.array([1]), np.array([1]), share=0.1)
...     print(second, proven[0], detector.evidence[0].round(2))
0 False 0.72
1 False 1.52
2 False 2.38
3 False 3.27
4 False 4.2
5 False 5.14
6 False 6.09
7 True 7.05
8 True 8.02
>>> detector.bound  # log(1 / alpha)
6.907755278982137

    Lindon, Malek: Anytime-valid inference for multinomial count data. NeurIPS 2022, arXiv:2011.03567.
    Ville: Etude critique de la notion de collectif. Gauthier-Villars, 1939.
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
class CanaryProofConfig:
    """`alpha` is the chance of a false proof in a row and stage, `odds` are the factors w of the alternatives."""

    alpha: float = 1e-3
    odds: tuple[float, ...] = (2, 5, 8, 13, 20, 32, 50, 80)


class CanaryProof:
    """The evidence of n rows. Raises ValueError if alpha is not between 0 and 1 or a factor is not greater than 1."""

    def __init__(self, rows: int, config: CanaryProofConfig) -> None:
        if not 0 < config.alpha < 1:
            raise ValueError(f"alpha {config.alpha} must lie between 0 and 1")
        self.config = config
        self.bound = -log(config.alpha)
        self._log_odds = checked_odds(config.odds)
        self._second = BEFORE
        self._log_e = np.zeros((len(config.odds), rows))
        # A result is final when its second is over: a second in several updates may cross the bound and come back.
        self._proven = np.zeros(rows, dtype=np.bool_)
        self._standing = np.zeros(rows, dtype=np.bool_)

    @property
    def evidence(self) -> Float:
        """The logarithm of the e-process of every row (n,), in nats, 0 at first. The row is proven at `bound`."""
        return log_mean(self._log_e)

    def update(self, second: int, canary_bad: Int, control_bad: Int, share: Float | float) -> Bool:
        """Add the bad requests of `second`, counts (n,); return the rows (n,) where the canary is proven worse.

        `share` (0..1), one for all or (n,), is the canary's share of the requests; at 0 and 1 a second is no evidence.
        Raises ValueError for invalid counts or shares, and for an earlier second than the last.
        """
        both = canary_bad + control_bad
        checked_counts(canary_bad, both, len(self._proven))
        if not np.all((np.asarray(share) >= 0) & (np.asarray(share) <= 1)):
            raise ValueError("a share is not between 0 and 1")
        if checked_second(second, self._second):
            self._second = second
            self._proven |= self._standing
        # A bad request of a canary without a share, as while a percentage spreads, would wrongly count log w.
        counted = np.where(np.greater(share, 0), both, 0)
        self._log_e += log_evalues(np.minimum(canary_bad, counted), counted, share, self._log_odds)
        self._standing = self.evidence >= self.bound
        return self._proven | self._standing

    def reset(self, rows: Int | Bool) -> None:
        """Restart these rows with a new alpha: a new stage or a new version of the flag."""
        self._log_e[:, rows] = 0
        self._proven[rows] = self._standing[rows] = False

    def state(self) -> Arrays:
        """See `detectors.state.Detector`."""
        return {"second": np.array(self._second), "log_e": self._log_e.copy(), "proven": self._proven.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `detectors.state.Detector`."""
        arrays = checked_state(state, self.state())
        self._second, self._log_e, self._proven = int(arrays["second"]), arrays["log_e"], arrays["proven"]
        self._standing = self.evidence >= self.bound
