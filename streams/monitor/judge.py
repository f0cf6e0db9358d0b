"""Evaluates the triggers of a shard: transitions, evidence, standing unknowns and the health record of a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from detectors.arrays import Int
from detectors.conditions.spec import TriggerSpec
from detectors.state import BEFORE
from detectors.triggers.evaluation import Evaluation
from detectors.triggers.state_machine import State
from detectors.windows.store import DISPLAY
from streams.condition import ShardCondition
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.evidence import FiringEvidence
from streams.monitor.health import Health, TriggerHealth, health
from streams.monitor.merge import Merge
from streams.monitor.resume_point import ResumePoint
from streams.monitor.shard_windows import ShardWindows
from streams.monitor.standing import Standing, StandingUnknown
from streams.monitor.taken_seconds import TakenSeconds
from streams.monitor.trigger_rows import unknown_rows, verdict_rows


class Judge:
    """Evaluates the triggers `specs` (n,) of a partition on its windows."""

    def __init__(
        self, partition: int, specs: Sequence[TriggerSpec], windows: ShardWindows, resume: ResumePoint
    ) -> None:
        self._partition = partition
        self._specs = specs
        self._scopes = [str(spec.scope) for spec in specs]
        self._published = resume.published
        self.standing = StandingUnknown(specs)
        self.standing.restore(resume.announced)
        self.safe: set[tuple[str, str]] = set()
        """The (environment, flag) pairs that are safe, so that no evidence is built for them."""
        self.reset(windows)

    def reset(self, windows: ShardWindows) -> None:
        """Continue on new, empty windows."""
        self._windows = windows
        self._slots = np.array([windows.store.slot(spec.scope) for spec in self._specs], dtype=np.int64)
        self.stale: set[int] = set()
        """Numbers of the triggers that fired while muted and have not yet been seen to breach on fresh evidence."""
        self.verdicts: Evaluation | None = None

    def evaluate(
        self,
        t: int,
        taken: TakenSeconds,
        merge: Merge,
        condition: ShardCondition,
        *,
        at: float,
        superseded: bool,
    ) -> EvaluatedSecond:
        """Evaluate all triggers at `t`, the end of the newest second in the windows.

        `at` is the clock (Unix seconds). `superseded` says that a later second is complete already: only the last of
        the complete seconds shows the present and may lead to a command.
        """
        muted = condition.status != "live"
        result = self._windows.evaluator.evaluate(t)
        self.verdicts = result
        for change in result.transitions:
            # A trigger that fired while muted did so on evidence that nothing may act upon. It leads to a command only
            # if fresh evidence shows the breach too.
            if change.to == State.FIRING and muted:
                self.stale.add(change.trigger)
            elif change.to != State.FIRING:
                self.stale.discard(change.trigger)
        repeated = self._published is not None and t <= self._published
        firing = [] if muted or superseded else list(self._firing(t, result, at))
        standing = [] if repeated else self._stand(result, muted=muted or superseded)
        drift = self._windows.drift
        drifts = [] if drift is None else list(drift.update(t - 1))
        return EvaluatedSecond(
            time=t,
            muted=muted,
            transitions=[] if repeated else [(self._specs[change.trigger], change) for change in result.transitions],
            firing=firing,
            ill=frozenset() if muted else frozenset(self._ill(result)),
            drifts=[] if muted else drifts,
            health=None if repeated else self._health(t, taken, merge, condition, at),
            observer=self._windows.observer,
            standing=standing,
            judged_at=at,
        )

    def _health(self, t: int, taken: TakenSeconds, merge: Merge, condition: ShardCondition, at: float) -> Health:
        return health(
            t,
            self._partition,
            next(iter(taken.of(t - 1)), None),
            self.triggers(),
            at=at,
            status=condition.status,
            detail=condition.detail,
            unread=merge.unread.over(t, DISPLAY),
            never_seen=self._never_seen(),
            without_flag=self._windows.coverage.at(t, merge.overflow),
        )

    def passed_over(self, t: int) -> EvaluatedSecond:
        """The result for a second that the checkpoint covers: the process before has evaluated it."""
        return EvaluatedSecond(t, True, [], [], frozenset(), [], None, self._windows.observer)

    def triggers(self) -> list[TriggerHealth]:
        """The verdict of every trigger as dashboards read it; empty before the first evaluation."""
        return [] if self.verdicts is None else verdict_rows(self.verdicts, self.standing, self._scopes)

    def unknown_health(self, end: int | None, condition: ShardCondition, at: float) -> Health:
        """A record for a time at which no second can be evaluated: every verdict is unknown, with the reason.

        `end` is the end of the last second in the windows, if there is one.
        """
        triggers = unknown_rows(self._specs, self.standing, self._scopes, condition.detail)
        time = max(end or 0, self._published or 0)
        return health(time, self._partition, None, triggers, at=at, status=condition.status, detail=condition.detail)

    def _stand(self, result: Evaluation, *, muted: bool) -> list[Standing]:
        """The changes of standing unknowns to publish; those of a muted second are published later."""
        self.standing.update(result, self._seen_at())
        if muted:
            self.standing.forget(result)
            return []
        return list(self.standing.changes(result))

    def _seen_at(self) -> Int:
        """The newest second of each trigger's scope (n,); BEFORE if the scope was never seen."""
        return np.where(self._slots >= 0, self._windows.store.seen_at(self._slots), BEFORE)

    def _never_seen(self) -> list[str]:
        never = np.flatnonzero(self._seen_at() == BEFORE).tolist()
        return sorted({self._scopes[i] for i in never})

    def _ill(self, result: Evaluation) -> Iterator[tuple[str, str]]:
        for row in np.flatnonzero(result.breach | result.suspected).tolist():
            spec = self._specs[row]
            if spec.action == "rollback":
                yield spec.environment, spec.flag

    def _firing(self, t: int, result: Evaluation, now: float) -> Iterator[FiringEvidence]:
        for row in result.firing():
            if (self._specs[row].environment, self._specs[row].flag) in self.safe:
                continue
            evidence = self._windows.evidence.evidence(row, t, result, now)
            if evidence is None:
                continue
            if row in self.stale:
                if not evidence.fresh:
                    continue
                self.stale.discard(row)
            yield evidence
