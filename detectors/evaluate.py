"""Triggers on windows: for every trigger its value, its threshold, whether that is a breach, and what it now says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.cells import LATE, REQUESTS
from detectors.metrics import compute
from detectors.seconds import Int
from detectors.spec import Metric, TriggerSpec
from detectors.triggers import FALSE, TRUE, UNKNOWN, State, Triggers
from detectors.windows import Want, WindowStore

Float = NDArray[np.float64]

MOST_LATE = 0.01
"""Share of late samples in a window above which nothing is said of it (DESIGN section 4)."""


class Transition(NamedTuple):
    """Trigger number `trigger` changed what it says at `t`; `reason` is the arithmetic behind it."""

    t: int
    trigger: int
    from_: State
    to: State
    value: float
    threshold: float
    samples: int
    reason: str


class Row(NamedTuple):
    """One trigger's verdict; None stands for no number."""

    state: str
    value: float | None
    threshold: float | None
    samples: int
    reason: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All triggers at evaluation `t`; arrays have shape (triggers,). `first_true_at` is t0 of what is held."""

    t: int
    specs: Sequence[TriggerSpec]
    state: NDArray[np.int8]
    value: Float
    threshold: Float
    samples: Int
    first_true_at: Int
    late: NDArray[np.bool_]
    transitions: Sequence[Transition]

    def firing(self) -> list[int]:
        return np.flatnonzero(self.state == State.FIRING).tolist()

    def rows(self) -> Iterator[Row]:
        """Every trigger in order, for people to read."""
        for i, spec in enumerate(self.specs):
            state = State(int(self.state[i]))
            value, threshold = float(self.value[i]), float(self.threshold[i])
            yield Row(
                state.name.lower(),
                None if np.isnan(value) else value,
                None if np.isnan(threshold) else threshold,
                int(self.samples[i]),
                _reason(spec, state, value, threshold, int(self.samples[i]), bool(self.late[i])),
            )


class _Group(NamedTuple):
    """Triggers whose value is computed together: one window, one metric; `at` numbers them, `rows` are the window's."""

    over: int
    metric: Metric
    measure: str | None
    at: Int
    rows: Int
    quantile: Float


def wants(specs: Sequence[TriggerSpec]) -> list[Want]:
    """The windows that the triggers look at."""
    return [
        Want(scope, spec.condition.over, spec.condition.metric == "latency_quantile")
        for spec in specs
        for scope in (spec.scope, spec.control_scope)
        if scope is not None
    ]


def measures(specs: Sequence[TriggerSpec]) -> list[str]:
    """The custom measures that the triggers look at."""
    return [spec.condition.measure for spec in specs if spec.condition.measure is not None]


class Evaluator:
    """Evaluates `specs` on the windows of `store`, which must have been made with what they want.

    Every evaluation costs numpy calls for each (window, metric) in use, over all its triggers at once.
    """

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._specs = tuple(specs)
        self._store = store
        self._triggers = Triggers(
            np.array([s.condition.hold for s in specs], dtype=np.int64),
            np.array([s.unknown_grace for s in specs], dtype=np.int64),
        )
        self._greater = np.array([s.condition.op == ">" for s in specs], dtype=bool)
        self._min_samples = np.array([s.min_samples for s in specs], dtype=np.int64)
        self._fixed = np.array([np.nan if s.threshold is None else s.threshold for s in specs], dtype=np.float64)
        controlled = [i for i, s in enumerate(specs) if s.control_scope is not None]
        self._controlled = np.array(controlled, dtype=np.int64)
        self._factor = np.array([specs[i].condition.value for i in controlled], dtype=np.float64)
        self._own = _groups(store, [(i, s) for i, s in enumerate(specs)], control=False)
        self._control = _groups(store, [(n, specs[i]) for n, i in enumerate(controlled)], control=True)

    def evaluate(self, t: int) -> Evaluation:
        """Evaluate at time t, the end of the windows. Raises ValueError when t is not later than the last."""
        n = len(self._specs)
        value, samples, late = np.full(n, np.nan), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
        self._compute(self._own, value, samples, late)
        threshold = self._fixed.copy()
        known = (samples >= self._min_samples) & ~np.isnan(value) & ~late
        if len(self._controlled):
            m = len(self._controlled)
            base, base_samples, base_late = np.full(m, np.nan), np.zeros(m, dtype=np.int64), np.zeros(m, dtype=bool)
            self._compute(self._control, base, base_samples, base_late)
            threshold[self._controlled] = self._factor * base
            enough = (base_samples >= self._min_samples[self._controlled]) & ~np.isnan(base) & ~base_late
            known[self._controlled] &= enough
        with np.errstate(invalid="ignore"):
            breach = np.where(self._greater, value > threshold, value < threshold)
        truth = np.where(known, np.where(breach, TRUE, FALSE), UNKNOWN).astype(np.int8)
        before = self._triggers.state.copy()
        state = self._triggers.step(t, truth)
        since = self._triggers.since.copy()
        changed = np.flatnonzero(before != state).tolist()
        transitions = [
            Transition(
                t,
                i,
                State(int(before[i])),
                State(int(state[i])),
                float(value[i]),
                float(threshold[i]),
                int(samples[i]),
                _reason(
                    self._specs[i],
                    State(int(state[i])),
                    float(value[i]),
                    float(threshold[i]),
                    int(samples[i]),
                    bool(late[i]),
                ),
            )
            for i in changed
        ]
        return Evaluation(t, self._specs, state, value, threshold, samples, since, late, transitions)

    def _compute(self, groups: Sequence[_Group], value: Float, samples: Int, late: NDArray[np.bool_]) -> None:
        for group in groups:
            found, count = compute(
                self._store, group.over, group.metric, group.rows, quantile=group.quantile, measure=group.measure
            )
            value[group.at], samples[group.at] = found, count
            sums = self._store.window(group.over).sums
            kept = group.rows >= 0
            behind, requests = sums[LATE][group.rows[kept]], sums[REQUESTS][group.rows[kept]]
            late[group.at[kept]] = behind > MOST_LATE * (requests + behind)


def _groups(store: WindowStore, specs: Sequence[tuple[int, TriggerSpec]], *, control: bool) -> list[_Group]:
    found: dict[tuple[int, Metric, str | None], list[tuple[int, int, float]]] = {}
    for i, spec in specs:
        condition = spec.condition
        scope = spec.control_scope if control else spec.scope
        row = -1 if scope is None else store.row(scope, condition.over)
        key = condition.over, condition.metric, condition.measure
        found.setdefault(key, []).append((i, row, condition.quantile or 0.5))
    return [
        _Group(
            *key,
            at=np.array([i for i, _, _ in rows], dtype=np.int64),
            rows=np.array([row for _, row, _ in rows], dtype=np.int64),
            quantile=np.array([q for _, _, q in rows], dtype=np.float64),
        )
        for key, rows in found.items()
    ]


def _reason(spec: TriggerSpec, state: State, value: float, threshold: float, samples: int, late: bool) -> str:
    """Why a trigger says what it says: the arithmetic, in the units of the metric."""
    condition = spec.condition
    if state is State.UNKNOWN:
        if late:
            return f"more than {MOST_LATE:.0%} of the samples came late"
        if samples < spec.min_samples:
            return f"samples {samples} < min_samples {spec.min_samples}"
        return "nothing to compare" if np.isnan(value) else "the control has too few samples"
    if state is State.OK:
        return ""
    held = f" for {condition.hold} s" if state is State.FIRING and condition.hold else ""
    return f"{value:.6g} {condition.op} {threshold:.6g}{held}"
