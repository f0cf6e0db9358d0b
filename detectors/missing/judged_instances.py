"""Which instances of a scope can be judged if samples of others are late, rejected or without an outcome.

An instance that lacks more than 1 % of its samples is left out; the others are judged if they have half of all samples.
That needs the counts of a window by instance, which only its log holds. After an outage of the brokers every scope may
be late at once, so an evaluation reads at most `MAX_ENTRIES` entries of the logs: the scopes read longest ago come
first, and a result is valid for `VALID_FOR` seconds. Few scopes are read in every evaluation.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Int
from detectors.cells import COUNTS, LATE, NO_OUTCOME, REJECTED, REQUESTS
from detectors.missing.missing_samples import missing_of
from detectors.state import BEFORE
from detectors.windows.by_instance import ByInstance, by_instance, samples_of, sum_by_row
from detectors.windows.store import WindowStore
from detectors.windows.window import Window

MAX_ENTRIES: Final = 100_000
"""Entries, one per instance and second, read in one evaluation: 15 ms."""

VALID_FOR: Final = 30

_NAMED, _NAME = 3, 60


class JudgedCounts(NamedTuple):
    """`counts` (r, len(COUNTS)) of the instances that can be judged; `enough` (r,) says whether they have half of all
    samples."""

    counts: Int
    enough: Bool


class _Found(NamedTuple):
    entries: ByInstance
    left_out: Bool
    """(2, k): the instances left out if requests without an outcome count as known, and if they count as missing."""


class _Kept:
    """The results of a window, by slot: when it was read, its place in that reading, and the counts of the judged
    instances."""

    def __init__(self, slots: int) -> None:
        self.at = np.full(slots, BEFORE, dtype=np.int64)
        self.place = np.zeros(slots, dtype=np.int64)
        self.counts = np.zeros((2, slots, len(COUNTS)), dtype=np.int64)
        self.enough = np.zeros((2, slots), dtype=bool)
        self.found: dict[int, _Found] = {}


class JudgedInstances:
    """Reads windows of `store` by instance, for the scopes that are asked for."""

    def __init__(self, store: WindowStore) -> None:
        self._store = store
        self._kept: dict[int, _Kept] = {}
        self._t = BEFORE
        self._left = MAX_ENTRIES

    def begin(self, t: int) -> None:
        """Start an evaluation at time t."""
        self._t, self._left = t, MAX_ENTRIES
        for kept in self._kept.values():
            kept.found = {at: found for at, found in kept.found.items() if t - at < VALID_FOR}

    def judged(self, seconds: int, slots: Int, *, outcome: bool) -> JudgedCounts:
        """Return the counts of the judged instances of some slots (r,) in a window.

        With `outcome`, requests that do not say how they ended count as missing.
        """
        self._refresh(seconds, np.unique(slots))
        kept = self._kept[seconds]
        known = self._t - kept.at[slots] < VALID_FOR
        return JudgedCounts(kept.counts[int(outcome)][slots], kept.enough[int(outcome)][slots] & known)

    def left_out(self, seconds: int, slot: int, *, outcome: bool) -> dict[str, Int]:
        """Return the counts (len(COUNTS),) of the known instances that are left out, by name, the busiest first."""
        entries = self._entries_left_out(seconds, slot, outcome=outcome)
        if entries is None:
            return {}
        counts, numbers = entries
        order = np.argsort(-(counts[:, REQUESTS] + counts[:, LATE] + counts[:, REJECTED]), kind="stable")
        return {self._store.instance(int(numbers[i])): counts[i] for i in order.tolist()}

    def numbers_left_out(self, seconds: int, slot: int, *, outcome: bool) -> Int:
        """Return the numbers of the known instances that are left out."""
        entries = self._entries_left_out(seconds, slot, outcome=outcome)
        return np.zeros(0, dtype=np.int64) if entries is None else entries[1]

    def _entries_left_out(self, seconds: int, slot: int, *, outcome: bool) -> tuple[Int, Int] | None:
        """Return the counts (k, len(COUNTS)) and numbers (k,) of the instances left out; None if the slot was not
        read."""
        kept = self._kept.get(seconds)
        found = None if kept is None else kept.found.get(int(kept.at[slot]))
        if kept is None or found is None:
            return None
        of = slice(*found.entries.starts[kept.place[slot] : kept.place[slot] + 2].tolist())
        out = found.left_out[int(outcome), of]
        return found.entries.counts[of][out], found.entries.instance[of][out]

    def text(self, seconds: int, slot: int, *, outcome: bool) -> str:
        """Return which instances are left out and why, for people: `instance pod-7 (100 % late)`; empty if none is
        known."""
        kept = self._kept.get(seconds)
        found = None if kept is None else kept.found.get(int(kept.at[slot]))
        if kept is None or found is None:
            return ""
        place = int(kept.place[slot])
        begin, end = int(found.entries.starts[place]), int(found.entries.starts[place + 1])
        if end - begin > 1 and found.left_out[int(outcome), begin:end].all():
            return f"all {end - begin} instances"
        out = self.left_out(seconds, slot, outcome=outcome)
        if not out:
            return ""
        named = [f"{_shortened(name)} ({_why(counts, outcome=outcome)})" for name, counts in list(out.items())[:_NAMED]]
        more = f" and {len(out) - _NAMED} more" if len(out) > _NAMED else ""
        return f"instance{'s' if len(out) > 1 else ''} {', '.join(named)}{more}"

    def _refresh(self, seconds: int, slots: Int) -> None:
        """Read those of some slots that this evaluation has not read yet, as far as its budget of entries allows."""
        window = self._store.window(seconds)
        window.settle()
        kept = self._kept.setdefault(seconds, _Kept(self._store.max_scopes))
        waiting = slots[kept.at[slots] < self._t]
        if not len(waiting):
            return
        entries = sum(len(second.instance_ids) for second in window.seconds_kept)
        each = max(entries / max(window.sums.shape[1], 1), 1)
        room = int(self._left / each)
        # The first slot of an evaluation is read in any case.
        room = max(room, 1) if self._left == MAX_ENTRIES else room
        chosen = waiting[np.argsort(kept.at[waiting], kind="stable")[:room]]
        if len(chosen):
            self._left -= int(len(chosen) * each)
            self._read(kept, window, chosen)

    def _read(self, kept: _Kept, window: Window, slots: Int) -> None:
        """Read the counts of some slots by instance from the log of a window, and store who can be judged."""
        found = by_instance(window.seconds_kept, slots)
        rows = np.array([window.row(slot) for slot in slots.tolist()], dtype=np.int64)
        whole = window.sums[: len(COUNTS)][:, rows].T
        left_out = np.zeros((2, len(found.row)), dtype=bool)
        # The instances that are not kept by name count as one more instance.
        nameless = whole - sum_by_row(found.counts, found.starts)
        for outcome in (False, True):
            left_out[int(outcome)] = missing_of(lambda c: found.counts[:, c], outcome=outcome).much
            rest = sum_by_row(found.counts * ~left_out[int(outcome), :, np.newaxis], found.starts)
            rest += nameless * ~missing_of(lambda c: nameless[:, c], outcome=outcome).much[:, np.newaxis]
            kept.counts[int(outcome)][slots] = rest
            kept.enough[int(outcome)][slots] = 2 * samples_of(rest) >= samples_of(whole)
        kept.at[slots], kept.place[slots] = self._t, np.arange(len(slots))
        # One evaluation may read a window several times, for metrics with different slots.
        earlier = kept.found.get(self._t)
        if earlier is not None:
            found, left_out = self._joined(kept, earlier, found, left_out, slots)
        kept.found[self._t] = _Found(found, left_out)

    def _joined(
        self, kept: _Kept, earlier: _Found, found: ByInstance, left_out: NDArray[np.bool_], slots: Int
    ) -> tuple[ByInstance, NDArray[np.bool_]]:
        """Append a reading to an earlier one of the same evaluation, and move the places of its slots accordingly."""
        before = len(earlier.entries.starts) - 1
        kept.place[slots] += before
        entries = ByInstance(
            np.concatenate((earlier.entries.row, found.row + before)),
            np.concatenate((earlier.entries.instance, found.instance)),
            np.concatenate((earlier.entries.counts, found.counts)),
            np.concatenate((earlier.entries.starts[:-1], found.starts + len(earlier.entries.row))),
        )
        return entries, np.concatenate((earlier.left_out, left_out), axis=1)


def _shortened(name: str) -> str:
    if not name:
        return "without a name"
    return name if len(name) <= _NAME else name[: _NAME - 3] + "..."


def _why(counts: Int, *, outcome: bool) -> str:
    total = max(int(counts[REQUESTS] + counts[LATE] + counts[REJECTED]), 1)
    kinds = [(LATE, "late"), (REJECTED, "rejected"), *([(NO_OUTCOME, "without an outcome")] if outcome else [])]
    return ", ".join(f"{100 * counts[column] / total:.3g} % {word}" for column, word in kinds if counts[column])
