"""The time that the samples of a partition have reached, which no single instance decides.

Consecutive samples of one instance form a run of at most `LONGEST` samples. Each run has one vote, the time of its
newest sample. After every `VOTES` votes, their median is the time reached. So a few instances with clocks that are
ahead do not move the time, nor does one that writes a thousand samples at once. A sample without an instance moves the
time by itself. The time depends on the order of the samples, never on how they are divided into batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float, Int

VOTES: Final = 32
"""Fewer votes follow the time more closely; more resist a larger share of instances that are ahead. If one instance in
ten is ahead, it has half of 32 votes once in a million times; three in ten have half once in 100."""
LONGEST: Final = 64
"""Samples of a run: a partition with a single instance has a vote for each `LONGEST` samples."""
TOGETHER: Final = 1 << 14
"""Samples whose votes are counted together: the numpy calls take 35 us, whether for 280 samples or 5,000."""
FEWEST: Final = 3
"""Votes before the first count: two votes cannot show which one is ahead."""

_MEDIAN = (VOTES - 1) // 2
_FIRST = np.zeros(1, dtype=np.int64)


class Progress:
    """The time that the samples of one partition have reached; `newest` is the time of the newest sample."""

    def __init__(self) -> None:
        self.newest = -math.inf
        self._reached = -math.inf
        self._votes: Float = np.zeros(0)
        self._ended = 0
        # The run that has not ended: its instance ("" for none), its newest time, its number of samples.
        self._name = ""
        self._peak = -math.inf
        self._size = 0
        # Samples whose votes are not counted yet, and the names that their instance numbers index.
        self._waiting: list[tuple[Float, Int]] = []
        self._waiting_rows = 0
        self._waiting_names: Sequence[str] = ()

    @property
    def reached(self) -> float | None:
        """Unix seconds; None before it is known."""
        self._settle()
        return None if self._reached == -math.inf else self._reached

    def advance(
        self, ts: Float, instance: Int, names: Sequence[str], lateness: float, accepted: NDArray[np.bool_] | None
    ) -> Float | None:
        """Add the next samples: times (n,), and instances (n,) as indices of `names`, 0 for none.

        Only samples selected by `accepted` (n,) can move the time; None selects all. Returns the time reached before
        each sample (n,), or None if for no sample it is more than `lateness` after the end of the sample's second.
        """
        if accepted is None:
            self.newest = max(self.newest, float(ts.max()))
            # The time reached is at most the newest sample's: if even that makes no sample late, it need not be known.
            if math.floor(ts.min()) + 1 > self.newest - lateness:
                self._wait(ts, instance, names)
                return None
            self._settle()
            return self._advance(ts, instance, names, lateness)
        self._settle()
        reached = np.full(len(ts) + 1, self._reached)
        if accepted.any():
            reached[1 : np.count_nonzero(accepted) + 1] = self._advance(
                ts[accepted], instance[accepted], names, -math.inf
            )
        return reached[np.cumsum(accepted)]

    def _wait(self, ts: Float, instance: Int, names: Sequence[str]) -> None:
        """Keep samples until there are enough to make the cost of the numpy calls small."""
        if names is not self._waiting_names:
            self._settle()
        self._waiting.append((ts, instance))
        self._waiting_names = names
        self._waiting_rows += len(ts)
        if self._waiting_rows >= TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Count the votes of the waiting samples."""
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
        # Nearly always all samples have an instance; one minimum takes a fifth of the time of a test per run.
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
        # Most batches span less than the lateness: then the earliest sample is enough to decide.
        if math.floor(ts.min()) + 1 > self._reached - lateness:
            return None
        reached = np.full(len(peaks) + 1, before)
        for places, medians in counts:
            reached[places] = medians
        reached = np.maximum.accumulate(reached)
        # The time reached at the start of each run. The vote of a run from an earlier batch precedes these.
        begun = reached[np.cumsum(named) - named][-len(starts) :]
        rows = np.repeat(begun, np.diff(starts, append=len(ts)))
        return rows if alone is None else np.maximum(rows, alone)

    def _count(self, votes: Float) -> list[tuple[Int, Float]]:
        """Add votes; returns pairs of places (numbers of votes after which a count took place) and their medians."""
        known, ended = np.concatenate((self._votes, votes)), self._ended
        counts: list[tuple[Int, Float]] = []
        # Until there are `VOTES` votes, count all of them after each vote.
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
    """The first row of each run. The first run already has `carried` samples from the batches before.

    `same` (n - 1,) says for each row after the first whether it has the instance of the row before.
    """
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
    # The beginning of each part, counted from the first sample of its run, which may be in an earlier batch.
    parts = (lengths - 1) // LONGEST + 1
    number = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
    begins = starts.copy()
    begins[0] -= carried
    rows = np.repeat(begins, parts) + number * LONGEST
    # Parts of the first run that began in an earlier batch continue at row 0.
    return np.unique(np.maximum(rows, 0)) if carried else rows


def _peaks(ts: Float, starts: Int, same: NDArray[np.bool_]) -> Float:
    """The newest sample of each run."""
    others = np.flatnonzero(same) + 1
    # `reduceat` takes twice as long if most runs have one sample. The branch below is wrong for divided runs.
    if 4 * len(others) > len(ts) or len(starts) + len(others) != len(ts):
        return np.maximum.reduceat(ts, starts)
    peaks = ts[starts]
    np.maximum.at(peaks, others - np.arange(1, len(others) + 1), ts[others])
    return peaks
