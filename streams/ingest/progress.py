"""How far in time the samples of a partition have come, on which no single instance decides.

Samples of one instance in a row are a run, `LONGEST` at most, which has a vote: its newest sample. Votes are counted
every `VOTES`: what more than half of those have reached is reached. So the time does not follow the few instances whose
clocks are ahead, nor one that writes its samples a thousand at a time. A sample without an instance speaks for itself.
What is reached depends on the order of the samples, never on how they were cut into batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int

VOTES: Final = 32
"""Fewer follow the time more closely, more stand against more instances that are ahead: of 32 votes those of one
instance in ten are the half once in a million times, of three in ten once in 100."""
LONGEST: Final = 64
"""Samples of a run: of a partition with a single instance the time is known every so many."""
TOGETHER: Final = 1 << 14
"""Samples whose votes are counted together: the calls alone take 35 us, of a slice of 280 as much as of 5,000."""
FEWEST: Final = 3
"""Votes before the first count: of two nobody knows which one is ahead."""

_MEDIAN = (VOTES - 1) // 2
_FIRST = np.zeros(1, dtype=np.int64)


class Progress:
    """The time that the samples of one partition have reached; `newest` is that of the newest of them."""

    def __init__(self) -> None:
        self.newest = -math.inf
        self._reached = -math.inf
        self._votes: Float = np.zeros(0)
        self._ended = 0
        # The run under way: its instance, "" for none; its newest sample; its samples.
        self._name = ""
        self._peak = -math.inf
        self._size = 0
        # Samples whose votes are not counted yet, and the names of their instances.
        self._waiting: list[tuple[Float, Int]] = []
        self._waiting_rows = 0
        self._waiting_names: Sequence[str] = ()

    @property
    def reached(self) -> float | None:
        """Unix seconds; None before it is known."""
        self._settle()
        return None if self._reached == -math.inf else self._reached

    def advance(
        self, ts: Float, instance: Int, names: Sequence[str], lateness: float, told: NDArray[np.bool_] | None
    ) -> Float | None:
        """Take in the next samples: their times and the instance of each as an index into `names`, 0 for none.

        Only those that are `told` have a word, None for all. Returns for each sample the time that was reached when it
        came; None where that is for none of them more than `lateness` after the end of its second.
        """
        if told is None:
            self.newest = max(self.newest, float(ts.max()))
            # No later than the newest is reached: then it need not be known how far.
            if math.floor(ts.min()) + 1 > self.newest - lateness:
                self._wait(ts, instance, names)
                return None
            self._settle()
            return self._advance(ts, instance, names, lateness)
        self._settle()
        reached = np.full(len(ts) + 1, self._reached)
        if told.any():
            reached[1 : np.count_nonzero(told) + 1] = self._advance(ts[told], instance[told], names, -math.inf)
        return reached[np.cumsum(told)]

    def _wait(self, ts: Float, instance: Int, names: Sequence[str]) -> None:
        """Keep samples until there are so many that a call for each array costs little."""
        if names is not self._waiting_names:
            self._settle()
        self._waiting.append((ts, instance))
        self._waiting_names = names
        self._waiting_rows += len(ts)
        if self._waiting_rows >= TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Count the votes of the samples that wait."""
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        if waiting:
            ts, instance = (
                np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in zip(*waiting, strict=True)
            )
            self._advance(ts, instance, self._waiting_names, math.inf)

    def _advance(self, ts: Float, instance: Int, names: Sequence[str], lateness: float) -> Float | None:
        self.newest = max(self.newest, float(ts.max()))
        goes_on = 0 < self._size < LONGEST and self._name == names[instance[0]]
        same = instance[1:] == instance[:-1]
        starts = _starts(same, self._size if goes_on else 0)
        peaks = _peaks(ts, starts, same)
        # Nearly always all have one, and to see that takes a fifth of looking at each run.
        named = np.ones(len(starts), dtype=np.bool_) if instance.min() > 0 else instance[starts] != 0
        if goes_on:
            peaks[0] = max(peaks[0], self._peak)
        elif self._name:
            peaks, named = np.append(self._peak, peaks), np.append(True, named)
        all_named = bool(named.all())
        before = self._reached
        counts = self._count(peaks[:-1] if all_named else peaks[:-1][named[:-1]])
        self._name, self._peak = names[instance[-1]], float(peaks[-1])
        self._size = len(ts) - int(starts[-1]) + (self._size if goes_on and len(starts) == 1 else 0)
        alone = None
        if not all_named:
            alone = np.maximum.accumulate(np.where(instance == 0, ts, -math.inf))
            self._reached = max(self._reached, float(alone[-1]))
        # Most batches span less than the lateness: then one look at the earliest is enough.
        if math.floor(ts.min()) + 1 > self._reached - lateness:
            return None
        reached = np.full(len(peaks) + 1, before)
        for places, medians in counts:
            reached[places] = medians
        reached = np.maximum.accumulate(reached)
        # Of each run, what was reached when it began; a vote that is a run of before lies ahead of them.
        begun = reached[np.cumsum(named) - named][-len(starts) :]
        rows = np.repeat(begun, np.diff(starts, append=len(ts)))
        return rows if alone is None else np.maximum(rows, alone)

    def _count(self, votes: Float) -> list[tuple[Int, Float]]:
        """Take in votes; returns after how many of them they were counted, and the time that was reached then."""
        known, ended = np.concatenate((self._votes, votes)), self._ended
        counts: list[tuple[Int, Float]] = []
        # Before the first `VOTES` are there, all there are.
        early = range(max(ended + 1, FEWEST), min(ended + len(votes), VOTES - 1) + 1)
        if early:
            medians = np.array([np.sort(known[:number])[(number - 1) // 2] for number in early])
            counts.append((np.array(early) - ended, medians))
        whole = (ended + len(votes)) // VOTES - ended // VOTES
        if whole:
            begin = len(self._votes) - ended % VOTES
            blocks = known[begin : begin + VOTES * whole].reshape(-1, VOTES)
            places = np.arange(1, whole + 1) * VOTES - ended % VOTES
            counts.append((places, np.partition(blocks, _MEDIAN, axis=1)[:, _MEDIAN]))
        self._reached = max([self._reached, *(float(medians.max()) for _, medians in counts)])
        self._votes, self._ended = known[-VOTES:], ended + len(votes)
        return counts


def _starts(same: NDArray[np.bool_], carried: int) -> Int:
    """The first rows of the runs; the first run has `carried` samples already. `same` says of all but the first of the
    rows that they are of the instance of the row before."""
    starts = np.concatenate((_FIRST, np.flatnonzero(~same) + 1))
    size = len(same) + 1
    if size - len(starts) + carried < LONGEST:
        return starts
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1] = size - starts[-1]
    lengths[0] += carried
    if int(lengths.max()) <= LONGEST:
        return starts
    # Where each part of a run begins, counted from the run's first sample, which may have come before.
    parts = (lengths - 1) // LONGEST + 1
    number = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
    begins = starts.copy()
    begins[0] -= carried
    rows = np.repeat(begins, parts) + number * LONGEST
    # Of the first run only what begins here; its part under way goes on at row 0.
    return np.unique(np.maximum(rows, 0)) if carried else rows


def _peaks(ts: Float, starts: Int, same: NDArray[np.bool_]) -> Float:
    """The newest sample of each run."""
    others = np.flatnonzero(same) + 1
    # Of runs of one sample, `reduceat` takes twice as long. A long run that was divided is not one of those.
    if 4 * len(others) > len(ts) or len(starts) + len(others) != len(ts):
        return np.maximum.reduceat(ts, starts)
    peaks = ts[starts]
    np.maximum.at(peaks, others - np.arange(1, len(others) + 1), ts[others])
    return peaks
