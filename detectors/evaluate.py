"""Triggers on windows: for every trigger its value, its threshold, whether that is a breach, and what it now says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.cells import LATE, REQUESTS, Scope
from detectors.metrics import compute
from detectors.overdue import limit_of, measure_of
from detectors.seconds import Int
from detectors.spec import Metric, TriggerSpec
from detectors.triggers import FALSE, TRUE, UNKNOWN, State, Triggers
from detectors.windows import Want, WindowStore

Float = NDArray[np.float64]

MOST_LATE = 1
"""Percent of a window's samples that may come late; above it nothing is said of the window (DESIGN section 4)."""


class Doubt(IntEnum):
    """Why nothing is said of a window; where several are true, the least."""

    NONE = 0
    NOT_KEPT = 1
    LATE = 2
    FEW_SAMPLES = 3
    NO_VALUE = 4


_NONE, _NOT_KEPT, _LATE, _FEW_SAMPLES, _NO_VALUE = (np.int8(doubt) for doubt in Doubt)


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
class Measured:
    """What the windows of one scope for each trigger show; arrays have shape (triggers,).

    `value` is nan where there is none, `late` the share of late samples in percent, `doubt` holds values of `Doubt`.
    """

    value: Float
    samples: Int
    late: Float
    doubt: NDArray[np.int8]

    def doubts(self, i: int, spec: TriggerSpec) -> str:
        """Why nothing is said of the window of trigger `i`, empty where something is."""
        match self.doubt[i]:
            case Doubt.NOT_KEPT:
                return "scope not kept: there are more than max_scopes"
            case Doubt.LATE:
                return f"late {self.late[i]:.4g} % > {MOST_LATE} %"
            case Doubt.FEW_SAMPLES:
                return f"samples {self.samples[i]} < min_samples {spec.min_samples}"
            case Doubt.NO_VALUE if spec.condition.metric == "throughput":
                return "nothing seen yet, or not watched for the whole window"
            case Doubt.NO_VALUE:
                return "no value: nothing to divide by"
        return ""


@dataclass(frozen=True)
class Evaluation:
    """All triggers at evaluation `t`; arrays have shape (triggers,).

    `state` and `previous` hold values of `State`; `breach` says whose condition is true now; `threshold` is nan where
    the control has no value; `first_true_at` is t0 of what is held, moved on by the time spent unknown. `control` is
    without doubt where none is compared with.
    """

    t: int
    specs: Sequence[TriggerSpec]
    state: NDArray[np.int8]
    previous: NDArray[np.int8]
    breach: NDArray[np.bool_]
    own: Measured
    control: Measured
    threshold: Float
    first_true_at: Int

    @property
    def value(self) -> Float:
        return self.own.value

    @property
    def samples(self) -> Int:
        return self.own.samples

    def firing(self) -> list[int]:
        """The numbers of the triggers that fire, ascending; those that are merely kept firing are not among them."""
        return np.flatnonzero((self.state == State.FIRING) & self.breach).tolist()

    @cached_property
    def transitions(self) -> Sequence[Transition]:
        """What changed since the evaluation before, by number of the trigger."""
        changed = np.flatnonzero(self.previous != self.state)
        numbers = (a[changed].tolist() for a in (self.previous, self.state, self.value, self.threshold, self.samples))
        return [
            Transition(self.t, i, State(before), State(state), value, threshold, samples, self.reason(i))
            for i, before, state, value, threshold, samples in zip(changed.tolist(), *numbers, strict=True)
        ]

    def rows(self) -> Iterator[Row]:
        """Every trigger in order, for people to read."""
        for i in range(len(self.specs)):
            value, threshold = float(self.value[i]), float(self.threshold[i])
            yield Row(
                State(int(self.state[i])).name.lower(),
                None if np.isnan(value) else value,
                None if np.isnan(threshold) else threshold,
                int(self.samples[i]),
                self.reason(i),
            )

    def reason(self, i: int) -> str:
        """Why trigger `i` says what it says: the arithmetic, in the unit of the metric; empty for ok."""
        spec, state = self.specs[i], self.state[i]
        condition = spec.condition
        if state == State.OK:
            return ""
        if state == State.UNKNOWN:
            return self.own.doubts(i, spec) or f"control: {self.control.doubts(i, spec)}"
        if not self.breach[i]:
            return f"kept firing: {self.value[i]:.6g} is not {condition.op} {self.threshold[i]:.6g} any more"
        held = f" for {condition.hold} s" if state == State.FIRING and condition.hold else ""
        return f"{self.value[i]:.6g} {condition.op} {self.threshold[i]:.6g}{held}"


class _Group(NamedTuple):
    """Triggers whose value is computed together: one window, one metric; `at` numbers them, `rows` are the window's,
    -1 for a scope that is not kept, and `kept` the places in `rows` of the others."""

    over: int
    metric: Metric
    measure: str | None
    limit_ms: float | None
    at: Int
    rows: Int
    kept: Int
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
    """The measures that the triggers look at: custom ones, and the sums of requests overdue for latency limits."""
    custom = [spec.condition.measure for spec in specs if spec.condition.measure is not None]
    return custom + [measure_of(limit) for limit in map(limit_of, specs) if limit is not None]


class Evaluator:
    """Evaluates `specs` on the windows of `store`, which must have been made with what they want.

    Every evaluation costs numpy calls for each (window, metric) in use, over all its triggers at once. Raises KeyError
    when the store lacks a window that a trigger looks at.
    """

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._specs = tuple(specs)
        self._store = store
        self._triggers = Triggers(
            np.array([s.condition.hold for s in specs], dtype=np.int64),
            np.array([s.unknown_grace for s in specs], dtype=np.int64),
            np.array([s.keep_for for s in specs], dtype=np.int64),
        )
        self._greater = np.array([s.condition.op == ">" for s in specs], dtype=bool)
        self._min_samples = np.array([s.min_samples for s in specs], dtype=np.int64)
        # With a control the factor; the threshold is that times the control's value.
        self._limit = np.array([s.condition.value if s.threshold is None else s.threshold for s in specs])
        self._controlled = np.array([s.control_scope is not None for s in specs], dtype=bool)
        self._own = _groups(store, [(i, s, s.scope) for i, s in enumerate(specs)])
        self._control = _groups(
            store, [(i, s, scope) for i, s in enumerate(specs) if (scope := s.control_scope) is not None]
        )

        n = len(specs)
        self._undoubted = Measured(
            np.full(n, np.nan), np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n, dtype=np.int8)
        )

    def evaluate(self, t: int) -> Evaluation:
        """Evaluate at time t, the end of the windows.

        Raises ValueError when the windows end elsewhere or t is not later than the last evaluation.
        """
        if t != self._store.end:
            raise ValueError(f"evaluation at {t}, but the windows end at {self._store.end}")
        own, control = self._measure(self._own), self._measure(self._control)
        threshold = self._limit * np.where(self._controlled, control.value, 1.0)
        # Nothing is greater or less than nan, and where it stands there is a doubt.
        breach = np.where(self._greater, own.value > threshold, own.value < threshold)
        known = (own.doubt == Doubt.NONE) & (control.doubt == Doubt.NONE)
        truth = np.where(known, np.where(breach, TRUE, FALSE), UNKNOWN).astype(np.int8)
        previous = self._triggers.state
        state = self._triggers.step(t, truth)
        since = self._triggers.since.copy()
        return Evaluation(t, self._specs, state, previous, truth == TRUE, own, control, threshold, since)

    def _measure(self, groups: Sequence[_Group]) -> Measured:
        n = len(self._specs)
        if not groups:
            return self._undoubted
        value, late = np.full(n, np.nan), np.zeros(n)
        samples, doubt = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int8)
        for group in groups:
            found, count = compute(
                self._store,
                group.over,
                group.metric,
                group.rows,
                quantile=group.quantile,
                measure=group.measure,
                limit_ms=group.limit_ms,
            )
            sums = self._store.window(group.over).sums
            behind, total = np.zeros((2, len(group.rows)), dtype=np.int64)
            behind[group.kept] = sums[LATE][group.rows[group.kept]]
            total[group.kept] = sums[REQUESTS][group.rows[group.kept]] + behind[group.kept]
            value[group.at], samples[group.at] = found, count
            late[group.at] = 100 * behind / np.maximum(total, 1)
            # Of several the least is said, so it is written last.
            why = np.where(np.isnan(found), _NO_VALUE, _NONE)
            why[count < self._min_samples[group.at]] = _FEW_SAMPLES
            why[100 * behind > MOST_LATE * total] = _LATE
            why[group.rows < 0] = _NOT_KEPT
            doubt[group.at] = why
        return Measured(value, samples, late, doubt)


def _groups(store: WindowStore, wanted: Sequence[tuple[int, TriggerSpec, Scope]]) -> list[_Group]:
    found: dict[tuple[int, Metric, str | None, float | None], list[tuple[int, int, float]]] = {}
    for i, spec, scope in wanted:
        condition = spec.condition
        key = condition.over, condition.metric, condition.measure, limit_of(spec)
        found.setdefault(key, []).append((i, store.row(scope, condition.over), condition.quantile or 0.5))
    return [
        _Group(
            *key,
            at=np.array([i for i, _, _ in rows], dtype=np.int64),
            rows=np.array([row for _, row, _ in rows], dtype=np.int64),
            kept=np.array([place for place, (_, row, _) in enumerate(rows) if row >= 0], dtype=np.int64),
            quantile=np.array([q for _, _, q in rows], dtype=np.float64),
        )
        for key, rows in found.items()
    ]
