"""Made-up traffic of many copies of a service, run through the windows and triggers of production.

The requests are a Poisson process, and each is bad (an error, a miss, a slow one: what the trigger is about) with a
given chance.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int
from detectors.cells import (
    CACHE_HITS,
    CACHE_LOOKUPS,
    COUNTS,
    ERRORS,
    LATENCY_COUNT,
    LATENCY_US,
    REQUESTS,
    TIMEOUTS,
    UNAVAILABLE,
    Cells,
    Scope,
)
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import bins
from detectors.triggers.evaluator import Evaluator
from detectors.triggers.state_machine import State
from detectors.triggers.wants import measures, wants
from detectors.windows.store import WindowStore

_LIMIT_MS = 1000.0
"""The limit between good and bad latencies if the condition compares with the control."""

_INSTANCES = ("a", "b")


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of `rate` requests a second, of which a share `split` has the new variant.

    `healthy` and `bad` are the shares of bad requests before and after the new variant's regression.
    """

    rate: float
    split: float
    healthy: float
    bad: float


class SimulatedService:
    """Copies of a service that go second by second through the windows and triggers of production."""

    def __init__(self, spec: TriggerSpec, scenario: Scenario, copies: int, chance: np.random.Generator) -> None:
        names = [f"{spec.service}-{number}" for number in range(copies)]
        # No commands and no latch: each evaluation shows the trigger's own state.
        self._specs = [replace(spec, service=name) for name in names]
        self._chance = chance
        self._copies = copies
        variants = spec.condition.variant is not None
        control = spec.control_variant or spec.safe_variant
        scopes: list[Scope] = []
        for name in names:
            if variants:
                scopes += [
                    Scope(spec.environment, name, spec.flag, str(spec.condition.variant)),
                    Scope(spec.environment, name, spec.flag, control),
                ]
            else:
                scopes.append(Scope(spec.environment, name))
        self._scopes = tuple(scopes)
        self._variants = variants
        self._scenario = scenario
        self._store = WindowStore(wants(self._specs), max_scopes=len(scopes), measures=measures(self._specs))
        self._evaluator = Evaluator(self._specs, self._store)
        self._second = 0
        timed = spec.condition.metric == "latency_quantile"
        limit = (spec.threshold or _LIMIT_MS) if timed else None
        self._latency_ms = None if limit is None else (limit / 2, limit * 2)

    def step(self, treated: float | Float, control: float | Float) -> NDArray[np.bool_]:
        """Simulate one second with these shares of bad requests, of all copies or of each.

        Return an array [copies] of bool: whether the copy's trigger fires at the second's end.
        """
        rate, split = self._scenario.rate, self._scenario.split
        n_treated = self._chance.poisson(rate * split, self._copies)
        n_control = self._chance.poisson(rate * (1 - split), self._copies)
        bad_treated = self._chance.binomial(n_treated, treated)
        bad_control = self._chance.binomial(n_control, control)
        if self._variants:
            n = np.stack([n_treated, n_control], axis=1).ravel()
            bad = np.stack([bad_treated, bad_control], axis=1).ravel()
        else:
            n, bad = n_treated + n_control, bad_treated + bad_control
        self._store.advance(self._second, self._cells(n.astype(np.int64), bad.astype(np.int64)))
        self._second += 1
        result = self._evaluator.evaluate(self._second)
        fires: NDArray[np.bool_] = result.state == State.FIRING
        return fires

    def _cells(self, n: Int, bad: Int) -> Cells:
        rows = np.flatnonzero(n)
        n, bad = n[rows], bad[rows]
        counts = np.zeros((len(rows), len(COUNTS)), dtype=np.int64)
        counts[:, REQUESTS] = n
        counts[:, ERRORS] = counts[:, TIMEOUTS] = counts[:, UNAVAILABLE] = bad
        counts[:, CACHE_LOOKUPS] = n
        counts[:, CACHE_HITS] = n - bad
        hist_cell = hist_bin = hist_count = np.zeros(0, dtype=np.int64)
        if self._latency_ms is not None:
            good_ms, bad_ms = self._latency_ms
            counts[:, LATENCY_COUNT] = n
            counts[:, LATENCY_US] = (1000 * (good_ms * (n - bad) + bad_ms * bad)).astype(np.int64)
            good_bin, bad_bin = bins(np.array([good_ms, bad_ms])).tolist()
            hist_cell = np.repeat(np.arange(len(rows)), 2)
            hist_bin = np.tile([good_bin, bad_bin], len(rows))
            hist_count = np.stack([n - bad, bad], axis=1).ravel()
            some = hist_count > 0
            hist_cell, hist_bin, hist_count = hist_cell[some], hist_bin[some], hist_count[some]
        none = np.zeros(0, dtype=np.int64)
        return Cells(
            scopes=self._scopes,
            scope=rows,
            second=np.full(len(rows), self._second),
            offset=np.zeros(len(rows), dtype=np.int64),
            counts=counts,
            hist_cell=hist_cell,
            hist_bin=hist_bin,
            hist_count=hist_count,
            instances=_INSTANCES,
            instance_cell=none,
            instance_id=none,
            instance_counts=np.zeros((0, len(COUNTS)), dtype=np.int64),
            measures=(),
            measure_cell=none,
            measure_id=none,
            measure_count=none,
            measure_sum=none,
        )
