"""Statistics of services that are watched for a change of their habit. What is found is told, and never acted upon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from detectors.cells import Scope
from detectors.conditions.metric_table import DriftMetric
from detectors.windows.ratios import RATIO
from detectors.windows.store import Want, WindowStore
from streams.monitor.drift import HOURS, Drift, DriftConfig, DriftWatch

Method = Literal["page_hinkley", "adwin"]


class DriftTarget(NamedTuple):
    """A ratio of a whole service, and the share of bad requests (0 to 1) by hour of the day, UTC, that is its habit."""

    environment: str
    service: str
    metric: DriftMetric
    method: Method
    bad: tuple[float, ...]

    @property
    def scope(self) -> Scope:
        return Scope(self.environment, self.service)


def drift_wants(habits: Sequence[DriftTarget]) -> list[Want]:
    """The windows that `ServiceDrift` needs."""
    return [Want(habit.scope, 1) for habit in habits]


class ServiceDrift:
    """Watches the habits of the services of one shard. Raises DriftUnavailable where river is not installed."""

    def __init__(self, habits: Sequence[DriftTarget], store: WindowStore) -> None:
        self._store = store
        # A detector of each method, over all habits that ask for it.
        self._watches = [
            (chosen, DriftWatch(_baseline(chosen), DriftConfig(method=method)))
            for method in dict.fromkeys(habit.method for habit in habits)
            if (chosen := [habit for habit in habits if habit.method == method])
        ]

    def update(self, second: int) -> Iterator[tuple[DriftTarget, Drift]]:
        """Take in the newest second of the windows; yield what drifted in it."""
        for habits, watch in self._watches:
            counts = [self._counts(habit) for habit in habits]
            bad, whole = (np.array(column, dtype=np.int64) for column in zip(*counts, strict=True))
            for drift in watch.update(second, bad, whole):
                yield habits[drift.row], drift

    def _counts(self, habit: DriftTarget) -> tuple[int, int]:
        row = self._store.row(habit.scope, 1)
        if row < 0:
            return 0, 0
        sums = self._store.window(1).sums
        return RATIO[habit.metric].bad(lambda column: int(sums[column, row]))


def _baseline(habits: Sequence[DriftTarget]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The bad shares by hour and habit, shape (24, n)."""
    return np.array([[habit.bad[hour % len(habit.bad)] for habit in habits] for hour in range(HOURS)])
