"""Stage 2: partials in, and for every second of event time the windows, verdicts and what fires.

State is the log: a shard (one partials partition) is rebuilt by reading the last minutes of partials again, or the last
checkpoint of its triggers and the partials of their windows. Seconds evaluated long after they happened are muted:
their verdicts are computed, nothing may be commanded because of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from detectors.arrays import Int
from detectors.cell_operations import by_second
from detectors.cells import Cells
from detectors.conditions.spec import TriggerSpec, longest_lookback
from detectors.errors import StateError
from detectors.state import BEFORE
from detectors.triggers.evaluation import Evaluation, Transition
from detectors.triggers.evaluator import Evaluator, measures, wants
from detectors.triggers.state_machine import State
from detectors.windows.slots import NEVER
from detectors.windows.store import DISPLAY, WindowStore
from streams.clock import Now, instant
from streams.condition import ShardCondition
from streams.monitor.checkpoint import Checkpoint
from streams.monitor.drift import Drift
from streams.monitor.drift_watch import DriftTarget, Habits, habit_wants
from streams.monitor.evidence import EvidenceBuilder, FiringEvidence, fresh_wants
from streams.monitor.flag_coverage import Coverage
from streams.monitor.freshness import LIVE, AgeLimits, ahead_of, condition, judged
from streams.monitor.health import Health, TriggerHealth, health
from streams.monitor.healthy_rates import HealthyRateRecord, days, learnt
from streams.monitor.merge import Merge
from streams.monitor.observer import Observer, flip_wants
from streams.monitor.resume_point import ResumePoint
from streams.monitor.settings import ShardSettings
from streams.monitor.standing import Standing, StandingUnknown
from streams.monitor.trigger_rows import unknown_rows, verdict_rows
from streams.monitor.unattributed import Unattributed
from streams.partials.batch import PartialBatch
from streams.partials.decode import decode_all

_logger = logging.getLogger(__name__)

SKIPPED_AFTER = 3600
"""Seconds of silence, beyond what triggers look back, that are gone through one by one."""

_NEW = ResumePoint()


@dataclass(frozen=True, slots=True)
class EvaluatedSecond:
    """What came of one evaluated second: `transitions` and `firing` are empty where everything is as it was.

    `firing` has the evidence of the triggers that fire, but for those of flags that are safe.
    `ill` are the (environment, flag) of which a rollback trigger's condition is true, held or not yet, or has half of
    the evidence that alarms; empty where muted. `muted` says that nothing may be commanded because of it. `drifts` are
    changes of habits, which nobody acts upon; none of muted seconds. `health` is None where it was published before.
    `standing` are verdicts that stay unknown, or do so no more. `judged_at` is the clock when it was judged.
    `observer` tells more of the windows as they are at `time`, until the next second is asked for.
    """

    time: int
    muted: bool
    transitions: Sequence[tuple[TriggerSpec, Transition]]
    firing: Sequence[FiringEvidence]
    ill: frozenset[tuple[str, str]]
    drifts: Sequence[tuple[DriftTarget, Drift]]
    health: Health | None
    observer: Observer
    standing: Sequence[Standing] = ()
    judged_at: float | None = None


class _Taken:
    """Seconds taken from the merge; they are cut apart only where that is asked for."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    @cached_property
    def _seconds(self) -> dict[int, Cells]:
        return dict(by_second(self.cells))

    def of(self, second: int) -> list[Cells]:
        """The block of a second; none where it is empty."""
        return [self._seconds[second]] if second in self._seconds else []


class Shard:
    """One partials partition: its windows and the triggers of the services that meet in it.

    `topics` are the telemetry topics whose sources must all have been read. `resume` says what the process before left.
    """

    def __init__(
        self,
        partition: int,
        specs: Sequence[TriggerSpec],
        topics: Sequence[str],
        settings: ShardSettings,
        resume: ResumePoint = _NEW,
        *,
        drift_targets: Sequence[DriftTarget] = (),
    ) -> None:
        self.partition = partition
        self._specs = tuple(specs)
        self._scopes = [str(spec.scope) for spec in specs]
        self.merge = Merge(topics, from_start=resume.from_start, most_bytes=settings.most_bytes)
        self._watched = tuple(drift_targets)
        self._max_scopes = settings.max_scopes
        self._flags: dict[tuple[str, str], tuple[int, float | None]] = {}
        self._make_windows()
        self._evaluate_every = settings.evaluate_every
        self._limits = AgeLimits.of(settings.catching_up_after, settings.max_lateness)
        self._published = resume.published
        self._checkpoint = resume.checkpoint
        self.standing = StandingUnknown(self._specs)
        self.standing.recall(resume.announced)
        self._slots = np.array([self.store.slot(spec.scope) for spec in specs], dtype=np.int64)
        self._unattributed = Unattributed(self._specs, topics)
        self._kept = longest_lookback(list(specs)) + SKIPPED_AFTER
        self._next: int | None = None
        self._stale: set[int] = set()
        self._safe: set[tuple[str, str]] = set()
        self.verdicts: Evaluation | None = None

    def _make_windows(self) -> None:
        wanted = [*wants(self._specs), *fresh_wants(self._specs), *flip_wants(self._specs), *habit_wants(self._watched)]
        self.store = WindowStore(wanted, max_scopes=self._max_scopes, measures=measures(self._specs))
        self._evaluator = Evaluator(self._specs, self.store)
        self.observer = Observer(self._specs, self.store)
        self._coverage = Coverage(self._specs, self.store)
        self._gather = EvidenceBuilder(self._specs, self.store, self.observer)
        self._habits = Habits(self._watched, self.store) if self._watched else None

    @property
    def time(self) -> int | None:
        """The end of the last second whose buckets are in the windows."""
        return self._next

    def condition(self, now: Now) -> ShardCondition:
        """May the shard act at `now`?"""
        if (ahead := ahead_of(self._next, now)) > 0:
            # Only what was judged while the clock was wrong can be; the process is started anew for it.
            return ShardCondition(
                "unknown", f"judged {ahead:.0f} s ahead of this machine's clock, which was wrong then"
            )
        return condition(self.merge, self._limits, now)

    def learnt(self) -> Iterator[HealthyRateRecord]:
        """What the triggers have learnt of their healthy rates, to be remembered."""
        return learnt(self._specs, self._evaluator.learnt())

    def recall(self, records: Iterable[HealthyRateRecord]) -> None:
        """Go on from what was remembered; to be told before the first partial."""
        self._evaluator.recall(days(self._specs, records))

    def checkpoint(self, of: str) -> Checkpoint | None:
        """What the triggers have gathered, to be given to who takes over; None before the first evaluation."""
        if self.verdicts is None:
            return None
        return Checkpoint(
            of=of, time=self.verdicts.t, stale=tuple(sorted(self._stale)), memory=self._evaluator.memory()
        )

    def flag_changed(
        self, environment: str, flag: str, changed_at: float | None, share: float | None, *, safe: bool = False
    ) -> None:
        """A flag has the version that was first seen at `changed_at` (Unix seconds), None for all along.

        What was gathered second by second under an earlier version is forgotten. `share` (0..1) is that of the requests
        which its percentage gives to the variant under judgement, None where that is not known. Of a flag that is
        `safe` nothing is left to be done, and no evidence is put together for it.
        """
        (self._safe.add if safe else self._safe.discard)((environment, flag))
        self.standing.flag(environment, flag, in_use=not safe)
        begin = BEFORE if changed_at is None else math.ceil(changed_at)
        self._flags[environment, flag] = begin, share
        self._evaluator.begin(environment, flag, begin, share=share)

    def take(self, raw: bytes, now: float | None) -> Iterator[EvaluatedSecond]:
        """Take in a partial and yield the seconds that it completes; PartialError where it cannot be read.

        `now` is the clock in Unix seconds; None replays a recording, in which every second is the present.
        """
        batch, errors = decode_all([raw])
        if errors:
            raise errors[0]
        yield from self.take_all(batch, None if now is None else partial(instant, now))

    def take_all(self, batch: PartialBatch, clock: Callable[[], Now] | None) -> Iterator[EvaluatedSecond]:
        """Take in partials that were read together: the seconds are those that each, taken alone, would complete.

        The clock is asked for each second that is judged: the caller may wait long before it takes the next one.
        """
        self._unattributed.note(batch)
        start = 0
        while start < len(batch.heads):
            end = start + 1
            # A record that tells of a new source makes the earlier ones count without it, and the first second of all
            # depends on what is known when the last source has spoken.
            if self._next is not None and self.merge.expects(batch.heads[start]):
                while end < len(batch.heads) and self.merge.expects(batch.heads[end]):
                    end += 1
            now = None if clock is None else clock()
            heard_at, latest = (0.0, math.inf) if now is None else (now.monotonic, now.latest)
            marks = self.merge.add_all(batch.part(start, end), heard_at, latest)
            yield from self._advance(marks, clock)
            start = end

    def _advance(self, marks: Sequence[float], clock: Callable[[], Now] | None) -> Iterator[EvaluatedSecond]:
        """Yield the seconds that are complete at each of the watermarks, which rise, and not yet evaluated."""
        if not marks:
            return
        finals = [math.floor(mark) for mark in marks]
        if self._next is None:
            first = self.merge.first()
            if clock is None and (first is None or first >= finals[0]):
                return
            # Silence is judged too: without a sample the verdicts begin with the watermark.
            begin = finals[0] if first is None else min(first, finals[0])
            whole = self.merge.whole_from
            self._next = begin if whole is None else max(begin, whole)
        taken: _Taken | None = None
        for final in finals:
            if clock is not None:
                # A sample of last year at the start of the log, or an outage of days: at 0.2 ms a second and shard, a
                # year is two hours in which nothing is judged. No trigger looks back that far.
                self._next = max(self._next, final - self._kept)
            if final <= self._next:
                continue
            if self.merge.lost_until is not None and self._next < self.merge.lost_until:
                if final <= self.merge.lost_until:
                    # What was given up is no silence.
                    continue
                self._begin_at(self.merge.lost_until)
            if taken is None:
                taken = _Taken(self.merge.take(finals[-1]))
                prepared = self.store.prepared(taken.cells) if finals[-1] - self._next > 1 else {}
            for second in range(self._next, final):
                if prepared:
                    self.store.advance_prepared(second, prepared.get(second))
                else:
                    self.store.advance(second, *taken.of(second))
                self._next = second + 1
                due = self._next % self._evaluate_every == 0
                if self._remembered(self._next):
                    self._evaluator.pass_over()
                    if due:
                        yield EvaluatedSecond(self._next, True, [], [], frozenset(), [], None, self.observer)
                    continue
                lost = self._unattributed.lost(self.merge.unread, self._next)
                self._evaluator.set_elsewhere(lost.samples, lost.where)
                self._evaluator.see()
                if due:
                    superseded = self._next + self._evaluate_every <= finals[-1]
                    yield self._evaluate(self._next, taken, None if clock is None else clock(), superseded)

    def _begin_at(self, second: int) -> None:
        """Begin anew with this second: what lies before it was given up, and no window may look across."""
        fields = {"partition": self.partition, "from": self._next, "until": second}
        _logger.error("monitor.seconds-lost", extra={"fields": fields})
        learnt = list(self.learnt())
        self._make_windows()
        self.recall(learnt)
        for (environment, flag), (begin, share) in self._flags.items():
            self._evaluator.begin(environment, flag, begin, share=share)
        self._next, self._checkpoint, self._stale, self.verdicts = second, None, set(), None

    def _remembered(self, t: int) -> bool:
        """Is what the triggers gathered of the second that ends at `t` in the checkpoint? With its last, take it in."""
        checkpoint = self._checkpoint
        if checkpoint is None or t < checkpoint.time:
            return checkpoint is not None
        self._checkpoint = None
        if t > checkpoint.time:
            return False
        try:
            self._evaluator.restore(checkpoint.memory)
        except StateError as error:
            _logger.error("checkpoint.unfit", extra={"fields": {"partition": self.partition, "error": str(error)}})
        else:
            self._stale = set(checkpoint.stale)
        return True

    def _evaluate(self, t: int, taken: _Taken, now: Now | None, superseded: bool) -> EvaluatedSecond:
        condition, at = LIVE, float(t)
        if now is not None:
            condition, at = judged(self.condition(now), self._limits, t, superseded=superseded, now=now), now.time
        muted = condition.status != "live"
        result = self._evaluator.evaluate(t)
        self.verdicts = result
        for change in result.transitions:
            # A trigger that fired while muted did so on evidence nobody may act upon; it must show itself again in
            # what is fresh.
            if change.to == State.FIRING and muted:
                self._stale.add(change.trigger)
            elif change.to != State.FIRING:
                self._stale.discard(change.trigger)
        known = self._published is not None and t <= self._published
        transitions = [] if known else [(self._specs[change.trigger], change) for change in result.transitions]
        # Of seconds that are complete together the last one says how it is.
        firing = [] if muted or (superseded and now is not None) else list(self._firing(t, result, at))
        standing = [] if known else self._stand(result, muted=muted or (superseded and now is not None))
        frame = None
        if not known:
            cells = next(iter(taken.of(t - 1)), None)
            frame = health(
                t,
                self.partition,
                cells,
                self.triggers(),
                at=at,
                status=condition.status,
                detail=condition.detail,
                unread=self.merge.unread.over(t, DISPLAY),
                never_seen=self._never_seen(),
                without_flag=self._coverage.at(t, self.merge.overflow),
            )
        ill = frozenset() if muted else frozenset(self._ill(result))
        drifts = list(self._habits.hear(t - 1)) if self._habits is not None else []
        return EvaluatedSecond(
            t, muted, transitions, firing, ill, [] if muted else drifts, frame, self.observer, standing, at
        )

    def _stand(self, result: Evaluation, *, muted: bool) -> list[Standing]:
        """What is to be told of verdicts that stay unknown; of what nobody may act upon, later."""
        self.standing.see(result, self._seen_at())
        if muted:
            self.standing.forget(result)
            return []
        return list(self.standing.changes(result))

    def announced(self, found: Standing) -> None:
        """What a second told of a verdict that stays unknown is in the audit log."""
        self.standing.written(found)

    def _seen_at(self) -> Int:
        return np.where(self._slots >= 0, self.store.seen_at(self._slots), NEVER)

    def _never_seen(self) -> list[str]:
        never = np.flatnonzero(self._seen_at() == NEVER).tolist()
        return sorted({self._scopes[i] for i in never})

    def _ill(self, result: Evaluation) -> Iterator[tuple[str, str]]:
        for row in np.flatnonzero(result.breach | result.suspected).tolist():
            spec = self._specs[row]
            if spec.action == "rollback":
                yield spec.environment, spec.flag

    def _firing(self, t: int, result: Evaluation, now: float) -> Iterator[FiringEvidence]:
        for row in result.firing():
            if (self._specs[row].environment, self._specs[row].flag) in self._safe:
                continue
            evidence = self._gather.evidence(row, t, result, now)
            if evidence is None:
                continue
            if row in self._stale:
                if not evidence.fresh:
                    continue
                self._stale.discard(row)
            yield evidence

    def triggers(self) -> list[TriggerHealth]:
        """The verdict of every trigger as dashboards read it."""
        return [] if self.verdicts is None else verdict_rows(self.verdicts, self.standing, self._scopes)

    def unknown_health(self, now: Now) -> Health:
        """A record for a second in which nothing could be evaluated: every verdict is unknown, and why."""
        condition = self.condition(now)
        triggers = unknown_rows(self._specs, self.standing, self._scopes, condition.detail)
        return health(
            max(self._next or 0, self._published or 0),
            self.partition,
            None,
            triggers,
            at=now.time,
            status=condition.status,
            detail=condition.detail,
        )
