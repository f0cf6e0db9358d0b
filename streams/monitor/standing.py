"""Verdicts that stay unknown while a flag is in use, so that a person hears of it (docs/promises.md, P8).

A flag is in use while its state is known and is not the safe one. A trigger of it that has been unknown for its
`unknown_alert` is told of, once, until it is known again or the flag is safe. While the state of the flag is not known,
as after a start, nothing begins, and what was told goes on: that it is not known does not say that the flag is safe.

It is known again once it has been for a fifth of `unknown_alert` (a minute), and for 30 s at least. Samples that are
late every 20 to 30 s make it unknown anew each time, and never for long enough to be told: the pause between them is no
health, and 30 s are longer. A verdict that may be unknown for an hour is to be known for more than a moment too.

Sooner, because somebody is to be woken:

- after 30 s where samples are late or rejected: that lasts until somebody mends it, and is the cheapest sabotage;
- at once where it fires, has been held for a third of its `for` or has half of the evidence that alarms, and then its
  data vanish: a release that breaks a service so far that nothing is measured any more would be turned back by nobody.

A trigger that is ok without some instances (`detectors.missing.missing_samples`) says nothing of those, so that is told
likewise, after `unknown_alert`.

All times are event time. What was told is in the health records, so that who takes over does not tell it anew.
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
LEAST_TRUSTED: Final = 30
"""Seconds for which a verdict must be known without a break, at least, until it is known again."""
VANISHED_AFTER: Final = 10
"""Seconds without a request after which the data of a trigger have vanished."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Triggers of one flag that are unknown, or in part, for the same kind of reason since `since`, or are no more (not
    `begun`).

    `reason` is that of the first of them.
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
    """The triggers `specs` (n,) of a shard; arrays have shape (n,)."""

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
        """Since when each is unknown, or in part, while its flag is in use; BEFORE where it is not."""
        self._known_since = np.full(n, BEFORE, dtype=np.int64)
        """Of what stands: since when it is known without a break; BEFORE where it is not."""
        self._missing_since = np.full(n, BEFORE, dtype=np.int64)
        """Of what stands: since when samples are missing, or were again and again."""
        self.told = np.zeros(n, dtype=bool)
        self.announced = np.zeros(n, dtype=bool)
        """Of what was told, what is written: only that need not be told by who takes over."""
        self._near = np.zeros(n, dtype=bool)

    def flag(self, environment: str, flag: str, *, in_use: bool) -> None:
        """The state of a flag is known."""
        own = self._of.get((environment, flag), [])
        self._in_use[own], self._safe[own] = in_use, not in_use

    def recall(self, told: Mapping[tuple[str, str, str], tuple[int, bool]]) -> None:
        """Go on from what the last health record says by flag, trigger and scope: unknown since when, and told."""
        for i, spec in enumerate(self._specs):
            found = told.get((spec.flag, spec.name, str(spec.scope)))
            if found is not None:
                self.since[i], self.told[i] = found
                self.announced[i] = self.told[i]

    def see(self, result: Evaluation, seen_at: Int) -> None:
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
        # What it was near to when it was last known, and is no more once it is known again.
        self._near = np.where(unknown, self._near & (self.since != BEFORE), near)
        self._vanished = unknown & standing & self._near & (result.t - seen_at > VANISHED_AFTER)

    def changes(self, result: Evaluation) -> Iterable[Standing]:
        """What is to be told after `see`: what began by flag and kind of reason, and what ended."""
        t = result.t
        standing, over = self._stands(result), self._over(t)
        ended = np.flatnonzero(self.told & over)
        yield from self._grouped(result, ended, begun=False)
        self.told[ended] = self.announced[ended] = False
        self._end(over)
        missing = self._missing(result) & (result.state == State.UNKNOWN) & (t - self._missing_since >= MISSING_AFTER)
        due = standing & ~self.told & ((t - self.since >= self._after) | missing | self._vanished)
        begun = np.flatnonzero(due)
        self.told[begun] = True
        yield from self._grouped(result, begun, begun=True)

    def written(self, found: Standing) -> None:
        """What was told is in the audit log."""
        for i, spec in enumerate(self._specs):
            own = (spec.environment, spec.flag, spec.service) == (found.environment, found.flag, found.service)
            if own and spec.name in found.triggers and self.since[i] == found.since:
                self.announced[i] = self.told[i] and found.begun

    def forget(self, result: Evaluation) -> None:
        """As `changes`, of a second of which nothing is told: what is unknown is told later."""
        self._end(self._over(result.t) & ~self.told)

    def _end(self, over: Bool) -> None:
        self.since[over] = self._known_since[over] = self._missing_since[over] = BEFORE

    def _stands(self, result: Evaluation) -> Bool:
        """Of what is in use, what is unknown, or ok without some instances."""
        standing: Bool = self._blind(result) & self._in_use
        return standing

    def _over(self, t: int) -> Bool:
        """What stands no more: the flag is safe, or the verdict has been known for long enough."""
        over: Bool = self._safe | ((self._known_since != BEFORE) & (t - self._known_since >= self._trusted))
        return over

    @staticmethod
    def _missing(result: Evaluation) -> Bool:
        missing: Bool = (result.own.unknown == UnknownReason.MISSING) | (
            result.control.unknown == UnknownReason.MISSING
        )
        return missing

    @staticmethod
    def _blind(result: Evaluation) -> Bool:
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
        if self._vanished[i]:
            return "vanished"
        if result.state[i] == State.OK:
            return "left_out"
        own, control = (
            UnknownReason(int(result.own.unknown[i])),
            UnknownReason(int(result.control.unknown[i])),
        )
        reason = own if own != UnknownReason.NONE else control
        if reason in (UnknownReason.FEW_SAMPLES, UnknownReason.NO_VALUE) and not result.own.samples[i]:
            return "silent"
        return reason.name.lower()
