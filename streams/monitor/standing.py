"""Announces verdicts that stay unknown while a flag is in use (docs/promises.md, P8).

A flag is in use while its state is known and is not the safe one. A trigger of such a flag that has been unknown for
its `unknown_alert` is reported once, until its verdict is known again or the flag is safe. While the state of the flag
is not known, as after a start, no new report begins, and one that was made stands: an unknown state does not mean that
the flag is safe.

A verdict counts as known again after it has been known without a break for a fifth of `unknown_alert` (a minute), and
for 30 s at least. Samples that are late every 20 to 30 s make a verdict unknown again and again, each time too shortly
to be reported; the pauses between them are no health, and 30 s are longer than such a pause. If a verdict may be
unknown for an hour, it must be known for more than a moment too.

Two cases are reported sooner, because a person must act:

- after 30 s if samples are late or rejected: that lasts until somebody repairs it, and is the cheapest sabotage;
- at once if the data of a trigger vanish while it fires, has been held for a third of its `for`, or has half of the
  evidence for an alarm: a release that breaks a service so badly that nothing is measured would be turned back by
  nobody.

A trigger that is ok without some instances (`detectors.missing.missing_samples`) does not judge these, so that is
reported too, after `unknown_alert`.

All times are event time. The health records say what was announced, so a process that takes over does not repeat it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.arrays import Bool, Int
from detectors.conditions.spec import TriggerSpec, by_flag
from detectors.missing.unknown_reason import UnknownReason
from detectors.state import BEFORE
from detectors.triggers.evaluation import Evaluation
from detectors.triggers.state_machine import State

MISSING_AFTER: Final = 30
"""Seconds after which an unknown is reported whose samples are late or rejected."""
LEAST_TRUSTED: Final = 30
"""Seconds for which a verdict must at least be known without a break to count as known again."""
VANISHED_AFTER: Final = 10
"""Seconds without a request after which the data of a trigger have vanished."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Triggers of one flag that have been unknown, or ok without some instances, since `since`; or no longer are.

    `begun` says which. `kind` is the kind of reason, the same for all; `reason` is that of the first. Times are event
    time; `t` is the evaluation.
    """

    environment: str
    flag: str
    triggers: Sequence[str]
    service: str
    begun: bool
    since: int
    t: int
    kind: str
    reason: str


class StandingUnknown:
    """Follows the triggers `specs` (n,) of a shard; arrays have shape (n,)."""

    def __init__(self, specs: Sequence[TriggerSpec]) -> None:
        n = len(specs)
        self._specs = specs
        self._of = by_flag(specs)
        self._after = np.array([s.unknown_alert for s in specs], dtype=np.int64)
        self._trusted = np.maximum(self._after // 5, LEAST_TRUSTED)
        self._hold = np.array([s.condition.hold for s in specs], dtype=np.int64)
        self._in_use = np.zeros(n, dtype=bool)
        self._safe = np.zeros(n, dtype=bool)
        self.since = np.full(n, BEFORE, dtype=np.int64)
        """Since when each is unknown, or ok without some instances, while its flag is in use; BEFORE if neither."""
        self._known_since = np.full(n, BEFORE, dtype=np.int64)
        """Since when the verdict of a trigger with a `since` is known without a break; BEFORE if it is not known."""
        self._missing_since = np.full(n, BEFORE, dtype=np.int64)
        """Since when samples of a trigger with a `since` are missing, or have been again and again."""
        self.reported = np.zeros(n, dtype=bool)
        """Whether `changes` has returned the begin of the unknown."""
        self.announced = np.zeros(n, dtype=bool)
        """Whether the event of that is in the audit log too; if not, a process that takes over reports it again."""
        self._near = np.zeros(n, dtype=bool)
        """Whether a trigger was near to firing when its verdict was last known."""

    def flag(self, environment: str, flag: str, *, in_use: bool) -> None:
        """Set whether a flag is in use; if not, it is safe."""
        own = self._of.get((environment, flag), [])
        self._in_use[own], self._safe[own] = in_use, not in_use

    def restore(self, announced: Mapping[tuple[str, str, str], tuple[int, bool]]) -> None:
        """Continue from the last health record: by flag, trigger and scope, since when the verdict is unknown and
        whether that was announced."""
        for i, spec in enumerate(self._specs):
            found = announced.get((spec.flag, spec.name, str(spec.scope)))
            if found is not None:
                self.since[i], self.reported[i] = found
                self.announced[i] = self.reported[i]

    def update(self, result: Evaluation, seen_at: Int) -> None:
        """Take in an evaluation; `seen_at` (n,) is the newest second of each trigger's scope."""
        unknown = result.state == State.UNKNOWN
        standing = self._stands(result)
        self.since[standing & (self.since == BEFORE)] = result.t
        self._missing_since[standing & self._missing(result) & (self._missing_since == BEFORE)] = result.t
        self._known_since[self._blind(result)] = BEFORE
        self._known_since[(self.since != BEFORE) & (self._known_since == BEFORE) & ~self._blind(result)] = result.t
        held = result.t - result.first_true_at
        near = (result.state == State.FIRING) | ((result.state == State.PENDING) & (3 * held >= self._hold))
        near |= result.suspected
        # An unknown verdict keeps whether it was near when it was last known.
        self._near = np.where(unknown, self._near & (self.since != BEFORE), near)
        silent = (seen_at != BEFORE) & (result.t - seen_at > VANISHED_AFTER)
        self._vanished = unknown & standing & self._near & silent

    def changes(self, result: Evaluation) -> Iterable[Standing]:
        """Yield what is to be reported after `update`: what has ended, then what begins, by flag and kind of reason."""
        t = result.t
        standing, over = self._stands(result), self._over(t)
        ended = np.flatnonzero(self.reported & over)
        yield from self._grouped(result, ended, begun=False)
        self.reported[ended] = self.announced[ended] = False
        self._end(over)
        missing = self._missing(result) & (result.state == State.UNKNOWN) & (t - self._missing_since >= MISSING_AFTER)
        due = standing & ~self.reported & ((t - self.since >= self._after) | missing | self._vanished)
        begun = np.flatnonzero(due)
        self.reported[begun] = True
        yield from self._grouped(result, begun, begun=True)

    def written(self, found: Standing) -> None:
        """Take in that the event of a change is in the audit log."""
        for i, spec in enumerate(self._specs):
            own = (spec.environment, spec.flag, spec.service) == (found.environment, found.flag, found.service)
            if own and spec.name in found.triggers and self.since[i] == found.since:
                self.announced[i] = self.reported[i] and found.begun

    def forget(self, result: Evaluation) -> None:
        """Use this instead of `changes` for a second of which nothing is published: changes are reported later."""
        self._end(self._over(result.t) & ~self.reported)

    def _end(self, over: Bool) -> None:
        self.since[over] = self._known_since[over] = self._missing_since[over] = BEFORE

    def _stands(self, result: Evaluation) -> Bool:
        """Which triggers are unknown, or ok without some instances, while their flag is in use."""
        standing: Bool = self._blind(result) & self._in_use
        return standing

    def _over(self, t: int) -> Bool:
        """Which triggers no longer stand unknown: the flag is safe, or the verdict has been known for long enough."""
        over: Bool = self._safe | ((self._known_since != BEFORE) & (t - self._known_since >= self._trusted))
        return over

    @staticmethod
    def _missing(result: Evaluation) -> Bool:
        """Which verdicts are unknown because samples are missing."""
        missing: Bool = (result.own.unknown == UnknownReason.MISSING) | (
            result.control.unknown == UnknownReason.MISSING
        )
        return missing

    @staticmethod
    def _blind(result: Evaluation) -> Bool:
        """Which verdicts are unknown, or ok without some instances."""
        part = (result.state == State.OK) & (result.own.judged | result.control.judged)
        blind: Bool = (result.state == State.UNKNOWN) | part
        return blind

    def _grouped(self, result: Evaluation, at: Int, *, begun: bool) -> Iterable[Standing]:
        groups: dict[tuple[str, str, str, str, int], list[int]] = {}
        for i in at.tolist():
            spec = self._specs[i]
            kind = self._kind(result, i) if begun else "known"
            groups.setdefault((spec.environment, spec.flag, spec.service, kind, int(self.since[i])), []).append(i)
        for (environment, flag, service, kind, since), numbers in groups.items():
            ended = "the flag is safe" if self._safe[numbers[0]] else "the verdict is known again"
            yield Standing(
                environment=environment,
                flag=flag,
                triggers=[self._specs[i].name for i in numbers],
                service=service,
                begun=begun,
                since=since,
                t=result.t,
                kind=kind,
                reason=result.reason(numbers[0]) if begun else ended,
            )

    def _kind(self, result: Evaluation, i: int) -> str:
        """The kind of reason why trigger `i` is unknown; `agent.decisions.standing` has the advice for it."""
        if self._vanished[i]:
            return "vanished"
        if result.state[i] == State.OK:
            return "left_out"
        own, control = UnknownReason(int(result.own.unknown[i])), UnknownReason(int(result.control.unknown[i]))
        reason = own if own != UnknownReason.NONE else control
        if reason in (UnknownReason.FEW_SAMPLES, UnknownReason.NO_VALUE) and not result.own.samples[i]:
            return "silent"
        return reason.name.lower()
