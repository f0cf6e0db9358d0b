"""How far in time the samples of a partition have come, on which no single instance decides.

Samples of one instance in a row are a run, `LONGEST` at most, which has a vote: its newest sample. The time that is
reached is the one that more than half of the last `VOTES` runs have reached at some time. So it does not follow the few
instances whose clocks are ahead, nor one that writes its samples a thousand at a time. A sample without an instance
speaks for itself. What is reached depends on the order of the samples, never on how they were cut into batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from detectors.cells import Int
from streams.decode_columns import Float

VOTES: Final = 32
"""Fewer follow the time more closely, more stand against more instances that are ahead: of 32 votes those of one
instance in ten are the half once in a million times, of three in ten once in 100."""
LONGEST: Final = 64
"""Samples of a run: of a partition with a single instance the time is known every so many."""
FEWEST: Final = 3
"""Votes before the first count: of two nobody knows which one is ahead."""

_MEDIAN = (VOTES - 1) // 2
_EVERY = 8
"""Votes between two counts, once there are `VOTES`: a count costs as much as 20 samples."""


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

    @property
    def reached(self) -> float | None:
        """Unix seconds; None before it is known."""
        return None if self._reached == -math.inf else self._reached

    def advance(self, ts: Float, instance: Int, names: Sequence[str], lateness: float) -> Float | None:
        """Take in the next samples: their times and the instance of each as an index into `names`, 0 for none.

        Returns for each of them the time that was reached when it came; None where that is for none of them more than
        `lateness` after the end of its second.
        """
        self.newest = max(self.newest, float(ts.max()))
        goes_on = 0 < self._size < LONGEST and self._name == names[instance[0]]
        starts = _starts(instance, self._size if goes_on else 0)
        peaks, of = np.maximum.reduceat(ts, starts), instance[starts]
        if goes_on:
            peaks[0] = max(peaks[0], self._peak)
        elif self._name:
            peaks, of = np.append(self._peak, peaks), np.append(-1, of)
        # Of each run, how many votes there were when it began.
        votes = np.cumsum(of != 0) - (of != 0)
        reached = self._count(peaks[:-1][of[:-1] != 0])[votes[-len(starts) :]]
        self._name, self._peak = names[instance[-1]], float(peaks[-1])
        self._size = len(ts) - int(starts[-1]) + (self._size if goes_on and len(starts) == 1 else 0)
        alone = None
        if not instance.all():
            alone = np.maximum.accumulate(np.where(instance == 0, ts, -math.inf))
            self._reached = max(self._reached, float(alone[-1]))
        # Most batches span less than the lateness: then one look at the earliest is enough.
        if math.floor(ts.min()) + 1 > self._reached - lateness:
            return None
        rows = np.repeat(reached, np.diff(np.append(starts, len(ts))))
        return rows if alone is None else np.maximum(rows, alone)

    def _count(self, votes: Float) -> Float:
        """Take in votes; returns the time that is reached before the first of them and after each."""
        known = np.concatenate((self._votes, votes))
        numbers = np.arange(self._ended + 1, self._ended + len(votes) + 1)
        reached = np.full(len(votes) + 1, self._reached)
        due = np.flatnonzero((numbers >= VOTES) & (numbers % _EVERY == 0))
        if len(due):
            last = np.lib.stride_tricks.sliding_window_view(known, VOTES)[due + len(self._votes) + 1 - VOTES]
            reached[due + 1] = np.partition(last, _MEDIAN, axis=1)[:, _MEDIAN]
        for number in range(max(self._ended + 1, FEWEST), min(self._ended + len(votes), VOTES - 1) + 1):
            reached[number - self._ended] = np.sort(known[:number])[(number - 1) // 2]
        reached = np.maximum.accumulate(reached)
        self._reached = float(reached[-1])
        self._votes, self._ended = known[-VOTES:], self._ended + len(votes)
        return reached


def _starts(instance: Int, carried: int) -> Int:
    """The first rows of the runs; the first run has `carried` samples already."""
    starts = np.flatnonzero(np.concatenate(([True], instance[1:] != instance[:-1])))
    lengths = np.diff(np.append(starts, len(instance)))
    lengths[0] += carried
    if int(lengths.max()) <= LONGEST:
        return starts
    begun = np.repeat(starts, np.diff(np.append(starts, len(instance))))
    place = np.arange(len(instance)) - begun
    place[begun == 0] += carried
    return np.flatnonzero((place % LONGEST == 0) | (np.arange(len(instance)) == begun))
