"""The canary has fallen silent while the control has traffic: it crashes before it answers, or nobody is served it.

No request means no error: every rate of a silent canary looks healthy. Each request of the two variants belongs to the
canary with probability rho, its share. If the control had c requests since the canary's last one, the probability that
none of them was the canary's is (1 - rho)^c. With the share of each second, the evidence in nats is

    A = sum of -c_t log(1 - rho_t)    over the seconds since the canary was last seen

and the row is absent once A >= log(gamma). At any second the probability of that is at most 1 / gamma, so there is at
most one false alarm in gamma seconds; for 30 days, log(gamma) is 14.8. For small shares A is the number of requests
that the canary should have sent: its silence is that many times its mean gap. Silence of both variants adds nothing.

As in `detectors.sequential.sample_ratio`, clients that keep their variant make gaps longer than independent requests
do.

The canary has 10 % of 100 requests/s; from second 2 on it has none:

>>> import numpy as np
>>> detector = Absence(1, AbsenceConfig())
>>> for second, canary in enumerate([9, 12, 0, 0]):
...     absent = detector.update(second, np.array([canary]), np.array([90]), share=0.1)
...     print(second, absent[0], detector.evidence[0].round(2))
0 False 0.0
1 False 0.0
2 False 9.48
3 True 18.96
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.state import BEFORE, Arrays, checked_second, checked_state

MAX_SHARE = 0.5
"""Greater shares count as this one: absence then needs 22 requests of the control. At a share of 100 %, one would
do."""


@dataclass(frozen=True, slots=True)
class AbsenceConfig:
    """`gamma` is the mean number of seconds between false alarms of one row, at least."""

    gamma: float = 30 * 86_400


class Absence:
    """The silence of n rows. Raises ValueError if gamma is less than 1."""

    def __init__(self, rows: int, config: AbsenceConfig) -> None:
        if config.gamma < 1:
            raise ValueError(f"gamma is {config.gamma}; a mean time between false alarms is at least 1 second")
        self.config = config
        self.bound = log(config.gamma)
        self._second = BEFORE
        self._silent = np.zeros(rows)
        self._heard = np.zeros(rows, dtype=np.bool_)

    @property
    def evidence(self) -> Float:
        """A of every row (n,), in nats. It alarms at `bound`."""
        return self._silent.copy()

    def update(self, second: int, canary: Int, control: Int, share: Float | float) -> Bool:
        """Add the requests of `second`, counts (n,); return the rows (n,) whose canary is absent.

        `share` (0..1), one for all or (n,), is the share of the requests that the canary should have. Requests of the
        control in a second with requests of the canary do not count. Raises ValueError for invalid counts or shares,
        and for an earlier second than the last.
        """
        if canary.shape != self._silent.shape or control.shape != canary.shape or np.any((canary < 0) | (control < 0)):
            raise ValueError(f"counts of {len(self._silent)} rows, none negative, are wanted")
        if not np.all((np.asarray(share) >= 0) & (np.asarray(share) <= 1)):
            raise ValueError("a share is not between 0 and 1")
        if checked_second(second, self._second):
            self._second = second
            self._heard[:] = False
        self._heard |= canary > 0
        self._silent = np.where(self._heard, 0.0, self._silent - control * np.log1p(-np.minimum(share, MAX_SHARE)))
        return self._silent >= self.bound

    def reset(self, rows: Int | Bool) -> None:
        """Restart these rows, as when the share is raised from 0."""
        self._silent[rows] = 0
        self._heard[rows] = False

    def state(self) -> Arrays:
        """See `detectors.state.Detector`."""
        return {"second": np.array(self._second), "silent": self._silent.copy(), "heard": self._heard.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `detectors.state.Detector`."""
        arrays = checked_state(state, self.state())
        self._second, self._silent, self._heard = int(arrays["second"]), arrays["silent"], arrays["heard"]
