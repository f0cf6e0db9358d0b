"""Watches the rates of services for drift from their baseline. Drifts are published and never acted upon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from detectors.cells import Scope
from detectors.conditions.metric_table import DriftMetric
from detectors.windows.ratios import RATIO_PARTS
from detectors.windows.store import Want, WindowStore
from streams.monitor.drift import HOURS, Drift, DriftConfig, DriftWatch

Method = Literal["page_hinkley", "adwin"]


class DriftTarget(NamedTuple):
    """A ratio of a whole service that is watched; `bad` is its baseline: the share of bad requests by hour, UTC.

    `bad` has values 0 to 1, and is repeated if it has fewer than 24.
    """

    environment: str
    service: str
    metric: DriftMetric
    method: Method
    bad: tuple[float, ...]

    @property
    def scope(self) -> Scope:
        return Scope(self.environment, self.service)


def drift_wants(targets: Sequence[DriftTarget]) -> list[Want]:
    """The windows that `ServiceDrift` needs."""
    return [Want(target.scope, 1) for target in targets]


class ServiceDrift:
    """Watches the drift targets of one shard. Raises DriftUnavailable if river is not installed."""

    def __init__(self, targets: Sequence[DriftTarget], store: WindowStore) -> None:
        self._store = store
        # One watch for each method, over all targets that use it.
        self._watches = [
            (chosen, DriftWatch(_baseline(chosen), DriftConfig(method=method)))
            for method in dict.fromkeys(target.method for target in targets)
            if (chosen := [target for target in targets if target.method == method])
        ]

    def update(self, second: int) -> Iterator[tuple[DriftTarget, Drift]]:
        """Take in the newest second of the windows; yield the drifts detected in it."""
        for targets, watch in self._watches:
            counts = [self._counts(target) for target in targets]
            bad, whole = (np.array(column, dtype=np.int64) for column in zip(*counts, strict=True))
            for drift in watch.update(second, bad, whole):
                yield targets[drift.row], drift

    def _counts(self, target: DriftTarget) -> tuple[int, int]:
        """The bad requests of the newest second, and all of them."""
        row = self._store.row(target.scope, 1)
        if row < 0:
            return 0, 0
        sums = self._store.window(1).sums
        return RATIO_PARTS[target.metric].bad(lambda column: int(sums[column, row]))


def _baseline(targets: Sequence[DriftTarget]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The shares of bad requests by hour and target, shape (24, n)."""
    return np.array([[target.bad[hour % len(target.bad)] for target in targets] for hour in range(HOURS)])
