"""The fast tier of triggers: a gross failure fires them within seconds, whatever their window and `for`.

The statistic of `detectors.sequential` on the bad requests of each second. Its null rate r0 is what the service has
shown on its worse healthy minutes (`detectors.healthy_rate`), never less than the trigger's own limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.bad_counts import BadCounts
from detectors.healthy_rate import HealthyRate, HealthyRateConfig
from detectors.seconds import Int
from detectors.sequential import FastTier, FastTierConfig
from detectors.spec import TriggerSpec
from detectors.state import BEFORE
from detectors.windows import WindowStore

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


class Fast:
    """The fast ones among `specs`, n of them; `at` (n,) are their numbers. Arrays have shape (n,).

    `alarm`, `evidence` (nats), `bound`, `r0` and `since`, the second with which the evidence began, are those of the
    newest second.
    """

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        chosen = [
            (i, spec, limit) for i, spec in enumerate(specs) if spec.fast and (limit := spec.bad_limit) is not None
        ]
        n = len(chosen)
        self.at = np.array([i for i, _, _ in chosen], dtype=np.int64)
        self._limit = np.array([limit for _, _, limit in chosen])
        self._counts = BadCounts(store, [(spec, spec.scope) for _, spec, _ in chosen]) if n else None
        if self._counts is not None:
            timed = [k for k, (_, spec, _) in enumerate(chosen) if spec.condition.metric == "latency_quantile"]
            limits = [chosen[k][1].threshold for k in timed]
            self._counts.set_limit(np.array(timed, dtype=np.int64), np.array(limits, dtype=np.float64))
        gammas = np.array([spec.false_alarms for _, spec, _ in chosen], dtype=np.float64)
        # A statistic has one mean time between false alarms; there are as many as the triggers have such times.
        self._tiers = [
            (rows, FastTier(len(rows), FastTierConfig(gamma=float(gamma))))
            for gamma in np.unique(gammas)
            for rows in (np.flatnonzero(gammas == gamma),)
        ]
        self.healthy = HealthyRate(n, HealthyRateConfig())
        self.alarm = np.zeros(n, dtype=np.bool_)
        self.evidence = np.full(n, -np.inf)
        self.bound = np.log(gammas)
        self.r0 = self.healthy.rate(self._limit)
        self.since = np.full(n, BEFORE, dtype=np.int64)

    def see(self, second: int, *, pending: Bool, firing: Bool, begin: Int) -> None:
        """Take in the newest second. `pending` and `firing` are what was said before it; what happened before the
        second `begin` is no evidence."""
        if self._counts is None:
            return
        bad, whole = self._counts.read()
        early = begin > second
        told = np.where(early, 0, whole)
        starts = (told > 0) & (self.evidence <= 0)
        self.since[starts] = second
        self.r0 = self.healthy.rate(self._limit)
        for rows, tier in self._tiers:
            tier.reset(early[rows])
            self.alarm[rows] = tier.update(second, np.minimum(bad, told)[rows], told[rows], self.r0[rows])
            self.evidence[rows] = tier.evidence
        self.healthy.update(second, bad, whole, pending=pending, firing=firing | self.alarm)

    def forget(self, rows: Bool) -> None:
        """Begin anew in these rows (n,), of which nothing was known for too long."""
        for own, tier in self._tiers:
            tier.reset(rows[own])
            self.evidence[own] = tier.evidence
        self.alarm[rows] = False
