"""Stage 2 of one partials partition: it takes in partials and evaluates the triggers for each second of event time.

The log is the state: a shard is rebuilt from the partials of the last minutes, or from the last checkpoint of its
triggers and the partials of their windows. Seconds that are evaluated long after they happened are muted: their
verdicts are computed, but no command may follow from them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from detectors.conditions.spec import TriggerSpec, longest_lookback
from detectors.errors import StateError
from detectors.state import BEFORE
from detectors.triggers.evaluation import Evaluation
from detectors.windows.store import WindowStore
from streams.clock import Now, instant
from streams.condition import ShardCondition
from streams.monitor.checkpoint import Checkpoint
from streams.monitor.drift_watch import DriftTarget
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.freshness import LIVE, AgeLimits, ahead_of, condition, judged
from streams.monitor.health import Health, TriggerHealth
from streams.monitor.healthy_rates import HealthyRateRecord, days_of, records_of
from streams.monitor.judge import Judge
from streams.monitor.merge import Merge
from streams.monitor.observer import Observer
from streams.monitor.resume_point import NEW_DEPLOYMENT, ResumePoint
from streams.monitor.settings import ShardSettings
from streams.monitor.shard_windows import ShardWindows
from streams.monitor.standing import Standing, StandingUnknown
from streams.monitor.taken_seconds import TakenSeconds
from streams.monitor.unattributed import Unattributed
from streams.partials.batch import PartialBatch
from streams.partials.decode import decode_all

_logger = logging.getLogger(__name__)

SKIPPED_AFTER = 3600
"""Seconds of silence, beyond what triggers look back, that are evaluated one by one. Of a longer silence the earlier
part is skipped."""


class Shard:
    """The windows of one partials partition, and the triggers of its services.

    `topics` are the telemetry topics; a second is evaluated when all their partitions have been read beyond it.
    `resume` is where the process that judged the partition before has stopped.
    """

    def __init__(
        self,
        partition: int,
        specs: Sequence[TriggerSpec],
        topics: Sequence[str],
        settings: ShardSettings,
        resume: ResumePoint = NEW_DEPLOYMENT,
        *,
        drift_targets: Sequence[DriftTarget] = (),
    ) -> None:
        self.partition = partition
        self._specs = tuple(specs)
        self._drift_targets = tuple(drift_targets)
        self._settings = settings
        self._limits = AgeLimits.of(settings.catching_up_after, settings.max_lateness)
        self.merge = Merge(topics, from_start=resume.from_start, most_bytes=settings.most_bytes)
        self._windows = self._new_windows()
        self._judge = Judge(partition, self._specs, self._windows, resume)
        self._checkpoint = resume.checkpoint
        self._flags: dict[tuple[str, str], tuple[int, float | None]] = {}
        self._unattributed = Unattributed(self._specs, topics)
        self._kept = longest_lookback(list(specs)) + SKIPPED_AFTER
        self._next: int | None = None

    def _new_windows(self) -> ShardWindows:
        return ShardWindows.of(self._specs, self._drift_targets, self._settings.max_scopes)

    @property
    def time(self) -> int | None:
        """The end of the last second in the windows (Unix seconds); None before the first."""
        return self._next

    @property
    def store(self) -> WindowStore:
        """The windows."""
        return self._windows.store

    @property
    def observer(self) -> Observer:
        """Reads what the windows show of a flag."""
        return self._windows.observer

    @property
    def verdicts(self) -> Evaluation | None:
        """The last evaluation."""
        return self._judge.verdicts

    @property
    def standing(self) -> StandingUnknown:
        """The verdicts that stay unknown."""
        return self._judge.standing

    def condition(self, now: Now) -> ShardCondition:
        """Whether the shard may act at `now`, and why not."""
        if (ahead := ahead_of(self._next, now)) > 0:
            # Seconds are judged ahead of the clock only while the clock is wrong; the process restarts because of it.
            return ShardCondition(
                "unknown", f"judged {ahead:.0f} s ahead of this machine's clock, which was wrong then"
            )
        return condition(self.merge, self._limits, now)

    def healthy_rates(self) -> Iterator[HealthyRateRecord]:
        """The healthy rates that the triggers have learnt, as records to publish."""
        return records_of(self._specs, self._windows.evaluator.healthy_days())

    def restore_healthy_rates(self, records: Iterable[HealthyRateRecord]) -> None:
        """Continue from published healthy rates. Call it before the first partial."""
        self._windows.evaluator.restore_healthy_days(days_of(self._specs, records))

    def checkpoint(self, of: str) -> Checkpoint | None:
        """The state of the triggers, for the process that takes over; None before the first evaluation."""
        if self.verdicts is None:
            return None
        memory = self._windows.evaluator.state()
        return Checkpoint(of=of, time=self.verdicts.t, stale=tuple(sorted(self._judge.stale)), memory=memory)

    def flag_changed(
        self, environment: str, flag: str, changed_at: float | None, share: float | None, *, safe: bool = False
    ) -> None:
        """Take in a version of a flag, first seen at `changed_at` (Unix seconds); None if it has always had it.

        Evidence that was gathered second by second under an earlier version is discarded. `share` (0..1) is the share
        of requests that the flag's percentage gives to the variant under judgement; None if it is not known. No
        evidence is built for a flag that is `safe`, as nothing is left to do.
        """
        (self._judge.safe.add if safe else self._judge.safe.discard)((environment, flag))
        self.standing.flag(environment, flag, in_use=not safe)
        begin = BEFORE if changed_at is None else math.ceil(changed_at)
        self._flags[environment, flag] = begin, share
        self._windows.evaluator.begin_version(environment, flag, begin, share=share)

    def take(self, raw: bytes, now: float | None) -> Iterator[EvaluatedSecond]:
        """Add a partial and yield the seconds that it completes. Raises PartialError if it cannot be read.

        `now` is the clock in Unix seconds; None is for a recording, in which every second is the present.
        """
        batch, errors = decode_all([raw])
        if errors:
            raise errors[0]
        yield from self.take_all(batch, None if now is None else partial(instant, now))

    def take_all(self, batch: PartialBatch, clock: Callable[[], Now] | None) -> Iterator[EvaluatedSecond]:
        """Add partials that were read together; yield the same seconds as if each were added alone.

        The clock is read for each second, because the caller may wait for long before it asks for the next one.
        """
        self._unattributed.note(batch)
        start = 0
        while start < len(batch.heads):
            end = start + 1
            # A record of a new source is added alone: the watermarks of the records before it do not depend on that
            # source, and the first second depends on the cells that are there when the last source comes.
            if self._next is not None and self.merge.expects(batch.heads[start]):
                while end < len(batch.heads) and self.merge.expects(batch.heads[end]):
                    end += 1
            now = None if clock is None else clock()
            heard_at, latest = (0.0, math.inf) if now is None else (now.monotonic, now.latest)
            marks = self.merge.add_all(batch.part(start, end), heard_at, latest)
            yield from self._advance(marks, clock)
            start = end

    def _advance(self, marks: Sequence[float], clock: Callable[[], Now] | None) -> Iterator[EvaluatedSecond]:
        """Yield the seconds that are complete at each of the ascending watermarks and not yet evaluated."""
        if not marks:
            return
        finals = [math.floor(mark) for mark in marks]
        if self._next is None:
            first = self.merge.first()
            if clock is None and (first is None or first >= finals[0]):
                return
            # Silence is judged too: if there is no sample, the verdicts begin at the watermark.
            begin = finals[0] if first is None else min(first, finals[0])
            whole = self.merge.whole_from
            self._next = begin if whole is None else max(begin, whole)
        taken: TakenSeconds | None = None
        for final in finals:
            if clock is not None:
                # If the log begins with a sample of last year, or after an outage of days, most seconds are skipped: a
                # year takes two hours at 0.2 ms for each second and shard, and no trigger looks back that far.
                self._next = max(self._next, final - self._kept)
            if final <= self._next:
                continue
            if self.merge.lost_until is not None and self._next < self.merge.lost_until:
                if final <= self.merge.lost_until:
                    # Seconds that were given up are not silence.
                    continue
                self._begin_at(self.merge.lost_until)
            if taken is None:
                taken = TakenSeconds(self.merge.take(finals[-1]))
                prepared = self.store.prepared(taken.cells) if finals[-1] - self._next > 1 else {}
            for second in range(self._next, final):
                if prepared:
                    self.store.advance_prepared(second, prepared.get(second))
                else:
                    self.store.advance(second, *taken.of(second))
                self._next = second + 1
                due = self._next % self._settings.evaluate_every == 0
                if self._in_checkpoint(self._next):
                    self._windows.evaluator.pass_over()
                    if due:
                        yield self._judge.passed_over(self._next)
                    continue
                lost = self._unattributed.lost(self.merge.unread, self._next)
                self._windows.evaluator.set_unattributed(lost.samples, lost.where)
                self._windows.evaluator.update()
                if due:
                    superseded = self._next + self._settings.evaluate_every <= finals[-1]
                    yield self._evaluate(self._next, taken, None if clock is None else clock(), superseded)

    def _begin_at(self, second: int) -> None:
        """Continue at this second with empty windows: earlier ones were given up, and no window may span the gap."""
        fields = {"partition": self.partition, "from": self._next, "until": second}
        _logger.error("monitor.seconds-lost", extra={"fields": fields})
        healthy_rates = list(self.healthy_rates())
        self._windows = self._new_windows()
        self._judge.reset(self._windows)
        self.restore_healthy_rates(healthy_rates)
        for (environment, flag), (begin, share) in self._flags.items():
            self._windows.evaluator.begin_version(environment, flag, begin, share=share)
        self._next, self._checkpoint = second, None

    def _in_checkpoint(self, t: int) -> bool:
        """Does the checkpoint cover the second that ends at `t`? At the time of the checkpoint, it is restored."""
        checkpoint = self._checkpoint
        if checkpoint is None or t < checkpoint.time:
            return checkpoint is not None
        self._checkpoint = None
        if t > checkpoint.time:
            return False
        try:
            self._windows.evaluator.restore(checkpoint.memory)
        except StateError as error:
            _logger.error("checkpoint.unfit", extra={"fields": {"partition": self.partition, "error": str(error)}})
        else:
            self._judge.stale = set(checkpoint.stale)
        return True

    def _evaluate(self, t: int, taken: TakenSeconds, now: Now | None, superseded: bool) -> EvaluatedSecond:
        if now is None:
            return self._judge.evaluate(t, taken, self.merge, LIVE, at=float(t), superseded=False)
        condition = judged(self.condition(now), self._limits, t, superseded=superseded, now=now)
        return self._judge.evaluate(t, taken, self.merge, condition, at=now.time, superseded=superseded)

    def announced(self, found: Standing) -> None:
        """Take in that the event of a standing unknown is in the audit log."""
        self.standing.written(found)

    def triggers(self) -> list[TriggerHealth]:
        """The verdict of every trigger as dashboards read it."""
        return self._judge.triggers()

    def unknown_health(self, now: Now) -> Health:
        """A record for a time at which no second can be evaluated: every verdict is unknown, with the reason."""
        return self._judge.unknown_health(self._next, self.condition(now), now.time)
