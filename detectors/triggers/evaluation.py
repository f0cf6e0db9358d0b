"""The result of an evaluation: the state of every trigger, and its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.conditions.spec import TriggerSpec, percent
from detectors.conditions.units import compared
from detectors.missing.missing_samples import Missing, asks_outcome
from detectors.missing.unknown_reason import ReasonTexts, UnknownReason, clock
from detectors.triggers.state_machine import State

# Looking up an enumeration member takes 0.5 us, and 40,000 triggers have as many reasons a second.
_FEW_SAMPLES, _MISSING, _NONE = int(UnknownReason.FEW_SAMPLES), int(UnknownReason.MISSING), int(UnknownReason.NONE)
_ONE_INSTANCE = int(UnknownReason.ONE_INSTANCE)
_OK, _FIRING, _UNKNOWN = int(State.OK), int(State.FIRING), int(State.UNKNOWN)
STATES = tuple(state.name.lower() for state in State)


class Tier(IntEnum):
    """What makes a trigger fire: its rule, held for its time; the fast tier; or the comparison with the control."""

    NONE = 0
    HELD = 1
    FAST = 2
    PROOF = 3


class Transition(NamedTuple):
    """Trigger number `trigger` changed its state at `t`; `reason` is the arithmetic behind it.

    `begin` is the first second of the judged version of the flag, BEFORE if it never changed.
    """

    t: int
    trigger: int
    from_: State
    to: State
    value: float
    threshold: float
    samples: int
    reason: str
    begin: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What the windows show, one scope per trigger; arrays have shape (triggers,).

    `value` is nan if there is none, `unknown` holds values of `UnknownReason`, `window` the seconds of the window that
    was read. `requests` counts the requests of windows without a sample of the metric, `missing` the missing samples if
    they are too many. `judged` marks triggers for which only some instances were judged, because the others lack too
    much. `slots` are the slots of the scopes in the store, -1 if there is none.
    """

    value: Float
    samples: Int
    unknown: NDArray[np.int8]
    window: Int
    requests: Int
    missing: Missing
    judged: Bool
    slots: Int


@dataclass(frozen=True, slots=True)
class Gathered:
    """Evidence that accumulates second by second; arrays have shape (triggers,), nan for triggers without any.

    `evidence` and the `bound` at which it alarms are logarithms of e-values, in nats. `null` is the share of bad
    requests (0..1) of the null hypothesis; `since` is the second in which the evidence began.
    """

    evidence: Float
    bound: Float
    null: Float
    since: Int


@dataclass(frozen=True)
class Evaluation:
    """All triggers at evaluation `t`; arrays have shape (triggers,).

    `state` and `previous` hold values of `State`; `tier` holds values of `Tier`: what makes a trigger fire now.
    `threshold` is nan if the control has no value. `first_true_at` is t0 of a held condition, moved forward by the time
    spent unknown. `begin` is the first second of the flag's version. `proof` marks proofs, which judge by accumulated
    evidence alone and show the value of a window beside it; `beyond` marks those whose value is beyond the threshold.
    `control` has no unknown reason for triggers that do not compare with it.
    """

    t: int
    specs: Sequence[TriggerSpec]
    state: NDArray[np.int8]
    previous: NDArray[np.int8]
    breach: Bool
    tier: NDArray[np.int8]
    own: Measured
    control: Measured
    threshold: Float
    first_true_at: Int
    begin: Int
    proof: Bool
    beyond: Bool
    gathered: Gathered
    texts: ReasonTexts

    @property
    def value(self) -> Float:
        return self.own.value

    @property
    def samples(self) -> Int:
        return self.own.samples

    @property
    def suspected(self) -> Bool:
        """The triggers whose gathered evidence is at least half of its bound, in nats."""
        return 2 * self.gathered.evidence >= self.gathered.bound

    def left_out(self, i: int) -> frozenset[str]:
        """Return the names of the instances that are left out of the verdict of trigger `i`."""
        if not self.own.judged[i]:
            return frozenset()
        outcome = asks_outcome(self.specs[i].condition.metric)
        return self.texts.names_left_out(slot=int(self.own.slots[i]), seconds=int(self.own.window[i]), outcome=outcome)

    def counted_as_healthy(self, i: int) -> int:
        """Return how many missing samples of trigger `i`, whose outcome is not known, count as healthy requests."""
        lacking = int(self.own.unknown[i]) == _MISSING and not self.own.judged[i]
        return int(self.own.missing.lost[i]) if lacking else 0

    def firing(self) -> list[int]:
        """Return the numbers of the firing triggers, ascending, without those that are merely kept firing."""
        return np.flatnonzero((self.state == State.FIRING) & (self.tier != Tier.NONE)).tolist()

    @cached_property
    def transitions(self) -> Sequence[Transition]:
        """The changes since the evaluation before, by trigger number."""
        changed = np.flatnonzero(self.previous != self.state)
        columns = (self.previous, self.state, self.value, self.threshold, self.samples, self.begin)
        numbers = (column[changed].tolist() for column in columns)
        return [
            Transition(self.t, i, State(before), State(state), value, threshold, samples, self.reason(i), begin)
            for i, before, state, value, threshold, samples, begin in zip(changed.tolist(), *numbers, strict=True)
        ]

    def reasons(self) -> list[str]:
        """Return the reason of every trigger, as `reason` does. Triggers that are plainly ok cost nothing."""
        plain = (self.state == State.OK) & ~(self.own.judged | self.control.judged | self.beyond)
        found = [""] * len(plain)
        for i in np.flatnonzero(~plain).tolist():
            found[i] = self.reason(i)
        return found

    @cached_property
    def judged_anew(self) -> Bool:
        """The triggers whose evidence restarted with the current version of the flag, while the window of the shown
        value still reaches further back."""
        found: Bool = self.proof & (self.t - self.own.window < self.begin)
        return found

    def reason(self, i: int) -> str:
        """Return why trigger `i` is in its state: the arithmetic, in the unit of the metric; empty for ok.

        Instances that are left out, and missing samples that do not prevent the verdict, are appended.
        """
        if int(self.state[i]) == _UNKNOWN:
            return self._why_unknown(i, self.own) or f"control: {self._why_unknown(i, self.control)}"
        return "; ".join(part for part in (self._arithmetic(i), self._limitations(i)) if part)

    def _why_unknown(self, i: int, side: Measured) -> str:
        """Return why a window of trigger `i` gives no verdict; empty if it gives one."""
        spec, reason = self.specs[i], int(side.unknown[i])
        if reason == _NONE:
            return ""
        if reason == _MISSING:
            outcome = asks_outcome(spec.condition.metric)
            return self.texts.missing(
                i, side.missing, slot=int(side.slots[i]), seconds=int(side.window[i]), outcome=outcome
            )
        if reason == _ONE_INSTANCE:
            return self.texts.one_instance(i)
        if reason == _FEW_SAMPLES and side.samples[i]:
            # Short cut: nearly all unknown triggers have this reason.
            return f"samples {side.samples[i]} < min_samples {spec.min_samples}"
        scope = spec.scope if side is self.own else spec.control_scope or spec.scope
        return self.texts.other(reason, spec, scope, int(side.samples[i]), int(side.requests[i]))

    def _limitations(self, i: int) -> str:
        """Return which instances are left out of the verdict, or what is missing in it."""
        parts = []
        for prefix, side in (("", self.own), ("control: ", self.control)):
            if side.judged[i]:
                parts.append(f"{prefix}left out: {self._left_out(i, side)}")
            elif side.unknown[i] == _MISSING:
                parts.append(f"{prefix}even if what is missing was well: {self._why_unknown(i, side)}")
        return "; ".join(parts)

    def _left_out(self, i: int, side: Measured) -> str:
        outcome = asks_outcome(self.specs[i].condition.metric)
        return self.texts.left_out(slot=int(side.slots[i]), seconds=int(side.window[i]), outcome=outcome)

    def _arithmetic(self, i: int) -> str:
        """Return the comparison that led to the state of trigger `i`."""
        spec, state = self.specs[i], int(self.state[i])
        condition = spec.condition
        if state == _OK:
            return self._not_proven(i) if self.beyond[i] else ""
        if self.tier[i] in (Tier.FAST, Tier.PROOF):
            return self._gathered(i)
        if state == _FIRING and self.tier[i] == Tier.NONE:
            if self.breach[i] or condition.sequential:
                return "kept firing: the evidence is below its bound"
            return f"kept firing: {self._compared(i, f'is not {condition.op}')} any more"
        held = f" for {condition.hold} s" if state == _FIRING and condition.hold else ""
        # The window is named only if a longer one replaced the configured one.
        wider = f" over {self.own.window[i]} s" if self.own.window[i] != condition.over else ""
        return self._compared(i, condition.op) + wider + held

    def _compared(self, i: int, op: str) -> str:
        return compared(self.specs[i].condition.label, float(self.value[i]), op, float(self.threshold[i]))

    def _not_proven(self, i: int) -> str:
        """Return why trigger `i` is ok although the shown value is beyond the threshold."""
        if self.judged_anew[i]:
            changed, seconds = clock(int(self.begin[i])), int(self.own.window[i])
            return f"judged anew since the flag changed at {changed}, the value is of the last {seconds} s"
        return f"not proven: evidence {self.gathered.evidence[i]:.4g} < {self.gathered.bound[i]:.4g} nats"

    def _gathered(self, i: int) -> str:
        """Return the accumulated evidence that makes trigger `i` fire, with its bound."""
        condition, found = self.specs[i].condition, self.gathered
        evidence = f"evidence {found.evidence[i]:.4g} >= {found.bound[i]:.4g} nats since {clock(int(found.since[i]))}"
        if condition.metric == "absence":
            return f"proof: no request of the variant: {evidence}"
        if self.tier[i] == Tier.PROOF:
            return f"proof: {self._compared(i, condition.op)} of the control: {evidence}"
        bad = percent(round(float(found.null[i]), 5))
        return f"fast: more than {bad} % bad: {evidence}"
