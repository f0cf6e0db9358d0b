"""Triggers that are ok only because one instance outweighs all others.

A sample may stand for up to a million requests. If one instance reports wrong weights, 1 % of the traffic can outweigh
all the rest, and the service looks as healthy as that instance. So if a service has three instances or more, and one
has more than half of the weight, the others are checked: if they breach by themselves, with enough samples, the trigger
is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

import numpy as np

from detectors.arrays import Bool, Float, Int
from detectors.cells import REQUESTS
from detectors.conditions.spec import TriggerSpec
from detectors.conditions.units import compared
from detectors.missing.judged_instances import JudgedInstances
from detectors.missing.majority import Majority
from detectors.missing.missing_samples import asks_outcome
from detectors.state import BEFORE
from detectors.triggers.evaluation import Measured
from detectors.windows.by_instance import by_instance
from detectors.windows.ratios import PARTS, RATIO_PARTS, value_of
from detectors.windows.store import WindowStore

LOOK_EVERY: Final = 5
"""Seconds between two checks of the triggers of a shard, which are all checked at once: reading the log of a window of
a minute takes 1 ms, however few triggers are suspect. Shards take turns, so that no second of a process costs more."""

TRIGGERS_AT_ONCE: Final = 100
"""Most triggers whose instances are read at once, which takes up to 4 ms for windows of a minute."""

SHORT_WINDOW: Final = 10
"""Windows shorter than these seconds are always read by instance: the vote misses an instance that led for 1 or 2 s."""

_LEAST_INSTANCES: Final = 3
_NAME: Final = 60


class Dominated:
    """Finds which of `specs`, on the scopes at `slots` (n,) of `store`, are ok because of one instance alone."""

    def __init__(
        self, specs: Sequence[TriggerSpec], slots: Int, store: WindowStore, instances: JudgedInstances
    ) -> None:
        self._instances = instances
        self._specs = specs
        self._slots = slots
        self._store = store
        self._majority = Majority(store.max_scopes)
        self._last_second = BEFORE
        self._greater = np.array([s.condition.op == ">" for s in specs], dtype=bool)
        self._ratio = np.array([s.condition.metric in RATIO_PARTS for s in specs], dtype=bool)
        self._min_samples = np.array([max(s.min_samples, 1) for s in specs], dtype=np.int64)
        self._checked_at = np.full(len(specs), BEFORE, dtype=np.int64)
        counted = np.flatnonzero([s.condition.metric in PARTS for s in specs])
        self._counted = counted[slots[counted] >= 0]
        metrics = {specs[i].condition.metric for i in counted.tolist()}
        self._columns = sorted({REQUESTS}.union(*(PARTS[metric].columns for metric in metrics)))
        self._turn = sum(repr([s.scope for s in specs[:1]]).encode()) % LOOK_EVERY
        self._time = BEFORE
        self.hidden: dict[int, str] = {}
        """By trigger number: which instance hides a breach, as a text for people."""

    def find(self, t: int, well: Bool, own: Measured, threshold: Float) -> Int:
        """Return the numbers of the triggers that are `well` at time t because of one instance alone.

        Arrays are (n,). `own` holds the values, of the judged instances, that were compared with `threshold`. Of more
        than `TRIGGERS_AT_ONCE` suspects, those checked longest ago come first.
        """
        self.hidden = {i: text for i, text in self.hidden.items() if well[i]} if self.hidden else {}
        if self._due(self._time, t):
            self._check(self._counted[well[self._counted]], t, own, threshold)
        self._time = t
        return np.array(sorted(self.hidden), dtype=np.int64)

    def _due(self, last: int, t: int) -> bool:
        """Return whether a turn of this shard came after `last` and up to t."""
        return (t - self._turn) // LOOK_EVERY > (last - self._turn) // LOOK_EVERY

    def _check(self, at: Int, t: int, own: Measured, threshold: Float) -> None:
        """Check the triggers with the numbers `at`, all of which are well."""
        value, limit = own.value[at], threshold[at]
        inverse = self._ratio[at] & ~self._greater[at]
        bad, limit = np.where(inverse, 1 - value, value), np.where(inverse, 1 - limit, limit)
        # With fewer bad requests the other instances cannot breach.
        suspect = np.flatnonzero(bad * own.samples[at] > limit * self._min_samples[at])
        at, bad, limit = at[suspect], bad[suspect], limit[suspect]
        window = own.window[at]
        # Nor can they if they have so many requests that even all bad ones stay below the limit.
        share = 1 - bad / np.maximum(limit, bad)
        voted = self._majority.led(self._slots[at], t - window, own.samples[at], window, share)
        # The vote also counts instances that are left out, and spans half a minute: a few seconds do not show in it.
        suspect = at[voted | own.judged[at] | (window < SHORT_WINDOW)]
        if self.hidden:
            for i in self.hidden.keys() - set(suspect.tolist()):
                self.hidden.pop(i, None)
        due = suspect[np.argsort(self._checked_at[suspect], kind="stable")[:TRIGGERS_AT_ONCE]]
        for seconds in np.unique(own.window[due]).tolist():
            self._read(due[own.window[due] == seconds], seconds, threshold, own.judged)
        self._checked_at[due] = t

    def update(self) -> None:
        """Count the seconds since the last update, if a check is due. It must be called in every second."""
        end = self._store.end or 0
        if not self._due(self._last_second + 1, end):
            return
        kept = (s for s in self._store.window(self._store.display).seconds_kept if s.second > self._last_second)
        # One vote over several seconds takes as long as a vote on one.
        for _, seconds in groupby(kept, lambda s: (s.second - self._turn) // LOOK_EVERY):
            self._majority.update(list(seconds))
        self._last_second = end - 1

    def _read(self, at: Int, seconds: int, threshold: Float, judged: Bool) -> None:
        """Read the instances of the triggers `at` in a window, and record those of which one instance hides a
        breach."""
        slots = np.unique(self._slots[at])
        found = by_instance(self._store.window(seconds).seconds_kept, slots, self._columns)
        for i, place in zip(at.tolist(), np.searchsorted(slots, self._slots[at]).tolist(), strict=True):
            self.hidden.pop(i, None)
            entries = slice(int(found.starts[place]), int(found.starts[place + 1]))
            counts, numbers = found.counts[entries], found.instance[entries]
            if judged[i]:
                kept = ~np.isin(numbers, self._left_out(i, seconds))
                counts, numbers = counts[kept], numbers[kept]
            weight = counts[:, REQUESTS]
            if len(counts) < _LEAST_INSTANCES or 2 * weight.max() <= weight.sum():
                continue
            first = int(weight.argmax())
            limit, condition = float(threshold[i]), self._specs[i].condition
            rest = counts.sum(axis=0) - counts[first]
            others, samples = value_of(condition.metric, rest), PARTS[condition.metric].of(rest.__getitem__)[1]
            if others is None or samples < self._min_samples[i]:
                continue
            if others > limit if condition.op == ">" else others < limit:
                share = 100 * int(weight[first]) / int(weight.sum())
                name = self._store.instance(int(numbers[first]))[:_NAME] or "without a name"
                comparison = compared(condition.label, others, condition.op, limit)
                self.hidden[i] = f"instance {name} has {share:.4g} % of the weight; without it: {comparison}"

    def _left_out(self, i: int, seconds: int) -> Int:
        """Return the numbers of the instances that are left out of the verdict of trigger `i`."""
        outcome = asks_outcome(self._specs[i].condition.metric)
        return self._instances.numbers_left_out(seconds, int(self._slots[i]), outcome=outcome)
