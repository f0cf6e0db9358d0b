"""The evaluation of all triggers: for each its value, its threshold, whether that is a breach, and its state.

A trigger fires when its condition has been held for its time, or when the accumulated evidence of single seconds is
enough: that of the fast tier, or of the comparison of a variant with its control. The two are independent: the fast
tier does not change how long a condition has been held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.conditions.spec import TriggerSpec, by_flag
from detectors.missing.flag_slots import FlagSlots
from detectors.missing.judged_instances import JudgedInstances
from detectors.missing.unattributed import UnattributedLoss
from detectors.missing.unknown_reason import ReasonTexts, UnknownReason
from detectors.missing.unread_variants import UnreadVariants
from detectors.state import BEFORE, Arrays, checked_state, part, prefixed
from detectors.triggers.absence_triggers import AbsenceTriggers
from detectors.triggers.dominated import Dominated
from detectors.triggers.evaluation import Evaluation, Gathered, Measured, Tier
from detectors.triggers.fast_triggers import Day, FastTriggers
from detectors.triggers.incomplete import IncompleteWindows
from detectors.triggers.proof_triggers import ProofTriggers
from detectors.triggers.state_machine import FALSE, TRUE, UNKNOWN, State, TriggerStates
from detectors.triggers.window_readings import WindowReadings
from detectors.windows.store import WindowStore

_FAST_REASONS = np.isin(
    np.arange(max(UnknownReason) + 1), (UnknownReason.NONE, UnknownReason.FEW_SAMPLES, UnknownReason.MISSING)
)
"""Whether the fast tier may fire, by the unknown reason of a trigger."""


class Evaluator:
    """Evaluates `specs` on the windows of `store`, which must have been created with their `detectors.triggers.wants`.

    An evaluation makes numpy calls per (windows, metric) in use, each over all triggers of that pair. Raises KeyError
    if the store lacks a window that a trigger reads.
    """

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._specs = tuple(specs)
        self._store = store
        n = len(specs)
        self._grace = np.array([s.unknown_grace for s in specs], dtype=np.int64)
        self._keep = np.array([s.keep_for for s in specs], dtype=np.int64)
        self._triggers = TriggerStates(
            np.array([s.condition.hold for s in specs], dtype=np.int64), self._grace, self._keep
        )
        self._greater = np.array([s.condition.op == ">" for s in specs], dtype=bool)
        # With a control this is the factor; the threshold is the factor times the control's value.
        self._limit = np.array([s.condition.value if s.threshold is None else s.threshold for s in specs])
        self._controlled = np.array([s.control_scope is not None for s in specs], dtype=bool)
        self._proof = np.array([s.condition.proof for s in specs], dtype=bool)
        self._sequential = np.array([s.condition.sequential for s in specs], dtype=bool)
        self._instances = JudgedInstances(store)
        flags = FlagSlots(specs, store)
        self._variants, self._unattributed = UnreadVariants(flags, store), UnattributedLoss(flags, store)
        self._texts = ReasonTexts(specs, store, self._instances, self._variants, self._unattributed)
        counted = [s.condition.metric != "absence" for s in specs]
        own = [s.scope if by_count else None for s, by_count in zip(specs, counted, strict=True)]
        control = [s.control_scope if by_count else None for s, by_count in zip(specs, counted, strict=True)]
        self._own, self._control = (
            WindowReadings(specs, scopes, store, self._instances, self._variants, self._unattributed)
            for scopes in (own, control)
        )
        self._dominated = Dominated(specs, self._own.slots, store, self._instances)
        self._incomplete = IncompleteWindows(specs, self._own, self._control)
        self._fast, self._proofs, self._absences = (
            FastTriggers(specs, store),
            ProofTriggers(specs, store),
            AbsenceTriggers(specs, store),
        )
        self._of = by_flag(specs)
        self._begin = np.full(n, BEFORE, dtype=np.int64)
        self._seen = BEFORE
        self._state = np.full(n, State.UNKNOWN, dtype=np.int8)
        self._samples_at = np.full(n, BEFORE, dtype=np.int64)
        self._fast_kept_since = np.full(n, BEFORE, dtype=np.int64)
        self._fast_fired = np.zeros(n, dtype=bool)

    def begin_version(self, environment: str, flag: str, second: int, *, share: float | None = None) -> None:
        """Restart the accumulated evidence of a flag that has another version from `second` on.

        `share` (0..1) is the share of the requests that should have the judged variant, None if it is not known.
        Windows, and conditions held on them, do not change. A repeated call has no effect.
        """
        own = np.zeros(len(self._specs), dtype=bool)
        own[self._of.get((environment, flag), [])] = True
        changed = own & (self._begin != second)
        self._begin[own] = second
        self._fast.reset(changed[self._fast.at])
        for compared in (self._proofs, self._absences):
            compared.reset(changed[compared.at])
            compared.set_share(own[compared.at], share)

    def set_unattributed(self, samples: Mapping[int, Int], where: Callable[[int, int], str] | None = None) -> None:
        """Set how many rejected samples of unreadable service may belong to each trigger (n,), for the newest second.

        `samples` is keyed by the seconds of windows that end with the newest second
        (`detectors.missing.unattributed.window_lengths`) and holds only counts above the tolerated share. `where`
        takes a trigger number and a window and returns the topics of such samples, for people. Call it again in each
        second.
        """
        self._unattributed.set_topics(samples, where)

    def healthy_days(self) -> dict[int, Day]:
        """See `detectors.triggers.fast_triggers.FastTriggers.healthy_days`."""
        return self._fast.healthy_days()

    def restore_healthy_days(self, days: Mapping[int, Day]) -> None:
        """See `detectors.triggers.fast_triggers.FastTriggers.restore_healthy_days`."""
        self._fast.restore_healthy_days(days)

    def state(self) -> Arrays:
        """Return copies of all state as of the last evaluation, except the windows and `healthy_days`."""
        own: Arrays = {
            "begin": self._begin.copy(),
            "state": self._state.copy(),
            "heard_at": self._samples_at.copy(),
            "fast_kept_since": self._fast_kept_since.copy(),
            "fast_fired": self._fast_fired.copy(),
        }
        return prefixed(
            own=own,
            seen=self._store.state(),
            triggers=self._triggers.state(),
            fast=self._fast.state(),
            proofs=self._proofs.state(),
            absences=self._absences.state(),
        )

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned, once the windows end where they did then.

        Evidence of flags that have another version by now is discarded. Raises StateError if the state does not fit the
        triggers.
        """
        arrays = checked_state(state, self.state())
        for name, holder in (
            ("triggers", self._triggers),
            ("fast", self._fast),
            ("proofs", self._proofs),
            ("absences", self._absences),
        ):
            holder.restore(part(arrays, name))
        self._store.restore(part(arrays, "seen"))
        own = part(arrays, "own")
        self._state, self._samples_at = own["state"], own["heard_at"]
        self._fast_kept_since, self._fast_fired = own["fast_kept_since"], own["fast_fired"]
        changed = own["begin"] != self._begin
        self._fast.reset(changed[self._fast.at])
        for compared in (self._proofs, self._absences):
            compared.reset(changed[compared.at])
        self._seen = self._triggers.time

    def update(self) -> None:
        """Add the newest second of the store, unless it was added before: accumulated evidence needs every second."""
        if self._store.end is None or self._store.end <= self._seen:
            return
        self._seen, second = self._store.end, self._store.end - 1
        self._update_unrestored()
        before, at = self._state[self._fast.at], self._fast.at
        pending, firing = before == State.PENDING, before == State.FIRING
        unattributed, variant = self._unattributed.recent(), self._variants.recent()
        either = unattributed if variant is None else variant if unattributed is None else unattributed + variant
        lost = _of(at, either)
        self._fast.update(second, pending=pending, firing=firing, begin=self._begin[at], unattributed=lost)
        at = self._proofs.at
        self._proofs.update(second, begin=self._begin[at], unattributed=_of(at, either))
        at = self._absences.at
        self._absences.update(
            second, begin=self._begin[at], unattributed=_of(at, unattributed), variant=_of(at, variant)
        )

    def pass_over(self) -> None:
        """Add the newest second of the store to the parts that `restore` does not restore, and to no other."""
        self._update_unrestored()

    def _update_unrestored(self) -> None:
        self._dominated.update()
        self._unattributed.update()

    def evaluate(self, t: int) -> Evaluation:
        """Evaluate at time t, the end of the windows.

        Raises ValueError if the windows do not end at t or t is not later than the last evaluation.
        """
        if t != self._store.end:
            raise ValueError(f"evaluation at {t}, but the windows end at {self._store.end}")
        if t <= self._triggers.time:
            raise ValueError(f"evaluation at {t} is not later than the last one at {self._triggers.time}")
        self.update()
        self._instances.begin(t)
        self._texts.begin()
        own, control = (readings.measure(self._begin) for readings in (self._own, self._control))
        threshold = self._limit * np.where(self._controlled, control.value, 1.0)
        # Comparisons with nan are false; such a trigger has an unknown reason.
        breach = np.where(self._greater, own.value > threshold, own.value < threshold)
        beyond = breach & self._proof
        self._compare(own, control, threshold, breach)
        known = (own.unknown == UnknownReason.NONE) & (control.unknown == UnknownReason.NONE)
        truth = np.where(known, np.where(breach, TRUE, FALSE), UNKNOWN).astype(np.int8)
        self._incomplete.judge(own, control, threshold, breach, truth)
        found = self._dominated.find(t, truth == FALSE, own, threshold)
        truth[found], own.unknown[found], own.judged[found] = UNKNOWN, UnknownReason.ONE_INSTANCE, False
        self._texts.hidden = self._dominated.hidden
        held = self._triggers.update(t, truth)
        fast = np.zeros(len(self._specs), dtype=bool)
        fast[self._fast.at] = self._fast.alarm
        # The fast tier needs no min_samples, and counts missing samples as healthy; but it does not fire without any
        # samples.
        has_samples = (own.samples > 0) & _FAST_REASONS.take(own.unknown)
        fast &= has_samples
        self._samples_at[has_samples] = t
        silent = t - self._samples_at > self._grace
        self._fast.reset(silent[self._fast.at])
        self._fast_fired &= ~silent
        state, previous = self._joined(t, held, fast), self._state
        self._state = state
        by_rule = np.where(self._sequential, Tier.PROOF, Tier.HELD)
        tier = np.where((held == State.FIRING) & (truth == TRUE), by_rule, Tier.NONE).astype(np.int8)
        tier[fast] = Tier.FAST
        since = self._triggers.since.copy()
        return Evaluation(
            t,
            self._specs,
            state,
            previous,
            truth == TRUE,
            tier,
            own,
            control,
            threshold,
            since,
            self._begin.copy(),
            self._proof,
            beyond,
            self._gathered(),
            self._texts,
        )

    def _joined(self, t: int, held: NDArray[np.int8], fast: Bool) -> NDArray[np.int8]:
        """Return the states of the rule and the fast tier combined; both are kept firing for the same time after they
        were true."""
        since = self._fast_kept_since
        since[~fast & self._fast_fired & (since == BEFORE)] = t
        since[fast] = BEFORE
        self._fast_fired |= fast
        over = (since != BEFORE) & (t - since >= self._keep)
        self._fast_fired[over] = False
        since[~self._fast_fired] = BEFORE
        shown = fast | (self._fast_fired & (held != State.UNKNOWN))
        return np.where(shown, np.int8(State.FIRING), held)

    def _compare(self, own: Measured, control: Measured, threshold: Float, breach: Bool) -> None:
        """Enter the results of the comparisons with the control into the measurements."""
        proofs, absences = self._proofs, self._absences
        at = proofs.at
        if len(at):
            breach[at] = proofs.proven
            comparable = (own.unknown[at] <= UnknownReason.MISSING) & (control.unknown[at] <= UnknownReason.MISSING)
            comparable &= (own.unknown[at] != UnknownReason.NOT_KEPT) & (control.unknown[at] != UnknownReason.NOT_KEPT)
            own.unknown[at] = np.where(comparable & proofs.mismatch, UnknownReason.MISMATCH, own.unknown[at])
            control.unknown[at] = np.where(comparable & proofs.open, UnknownReason.NO_LIMIT, control.unknown[at])
        at = absences.at
        if not len(at):
            return
        missing = absences.missing
        own.value[at], own.samples[at] = absences.evidence, absences.missed
        threshold[at], breach[at] = absences.bound, absences.absent
        own.unknown[at] = absences.unknown(missing)
        own.slots[at], own.window[at] = absences.slots, absences.over
        if missing is not None:
            for noted, count in zip(own.missing, missing, strict=True):
                noted[at] = count

    def _gathered(self) -> Gathered:
        """Collect the accumulated evidence of all triggers that have some."""
        n = len(self._specs)
        nothing = np.full(n, np.nan)
        found = Gathered(nothing, nothing.copy(), nothing.copy(), np.full(n, BEFORE, dtype=np.int64))
        for by in (self._fast, self._proofs, self._absences):
            found.evidence[by.at], found.bound[by.at], found.since[by.at] = by.evidence, by.bound, by.since
        found.null[self._fast.at] = self._fast.r0
        return found


def _of(at: Int, samples: Int | None) -> Int | None:
    return None if samples is None else samples[at]
