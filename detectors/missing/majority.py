"""The slots in which one instance sends more than half of the requests, found without a count for every instance.

A weighted majority vote (Boyer and Moore, "MJRTY: A Fast Majority Vote Algorithm", 1991) in each slot: the candidate
gains the requests that it sends and loses those that all others send; a candidate that has lost everything is replaced
by the instance that sends most. A lasting majority therefore becomes the candidate and keeps a lead. A vote on single
seconds would find a majority in every service of little traffic: of 10 requests from 3 instances, one instance has 6 or
more in a fifth of all seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int, Ints
from detectors.cells import REQUESTS
from detectors.state import BEFORE
from detectors.windows.by_instance import summed
from detectors.windows.second import Second

FADE: Final = 0.97
"""The factor on a lead, and on the weight that it is compared with, for each second that passes."""

MEMORY: Final = 1 / (1 - FADE)
"""The weight, in seconds of even traffic."""

MOST_WEIGHT: Final = 2 * MEMORY
"""The most weight, in seconds of traffic like that of the newest second. At one request a second from three instances,
8 % of windows of 10 s then have a leader by chance, not 4 %; at three requests a second, none."""

LEAST_LEAD: Final = 0.05
"""The part of the weight by which a candidate must lead, as it does with 52.5 % of the requests: chance seldom leads by
that."""

SURE_LEAD: Final = 0.12
"""The part of the requests by which a candidate must lead (with 56 %) so that the vote finds it by `LEAST_LEAD`
whatever came before."""

FORGET_AFTER: Final = 3600
"""Seconds after which the greatest lead is dropped; no window is longer."""


class Majority:
    """The vote in each of `slots` slots. It must be updated with every second once, ascending."""

    def __init__(self, slots: int) -> None:
        self._candidate = np.full(slots, -1, dtype=np.int32)
        self._lead = np.zeros(slots)
        self._weight = np.zeros(slots)
        self._newest = BEFORE
        self._last = np.full(slots, BEFORE, dtype=np.int64)
        """The newest second in which a candidate led."""
        self._greatest = np.zeros(slots)
        """The greatest lead of those seconds."""

    def led(self, slots: Int, since: Int, requests: Int, seconds: Int, share: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return in which slots a candidate led, from `since` on, by enough to have a `share` of so many requests in so
        many seconds. All arrays are (s,), no slot is negative, and a share below one half counts as one half."""
        least = LEAST_LEAD * np.maximum((2 * share - 1) / SURE_LEAD, 1)
        enough = least * requests * np.minimum(MEMORY / seconds, 1)
        result: NDArray[np.bool_] = (self._last[slots] >= since) & (self._greatest[slots] > enough)
        return result

    def update(self, seconds: Sequence[Second]) -> None:
        """Count the votes of consecutive seconds, ascending, whose rows are slots, as if they were one second."""
        newest = seconds[-1].second
        fade = FADE ** min(newest - self._newest, 1_000)
        self._newest = newest
        self._lead *= fade
        self._weight *= fade
        rows, instances, requests = _votes(seconds)
        if not len(rows):
            return
        another = rows[1:] != rows[:-1]
        starts = np.concatenate(([0], np.flatnonzero(another) + 1))
        # Sums as differences of running sums: for 30,000 entries these take 0.1 ms, `repeat` and `reduceat` 0.4 ms.
        of = np.concatenate(([0], np.cumsum(another, dtype=np.int32)))
        sums = np.concatenate(([0], np.cumsum(requests, dtype=np.int64)))
        total: Int = sums[np.append(starts[1:], len(rows))] - sums[starts]
        slots = rows[starts]
        most = np.maximum.reduceat(requests, starts)
        own, first = np.zeros(len(starts), dtype=np.int64), np.zeros(len(starts), dtype=np.int64)
        for chosen, into, value in (
            (instances == self._candidate.take(rows), own, requests),
            (requests == most.take(of), first, instances),
        ):
            at = np.flatnonzero(chosen)
            into[of.take(at)] = value.take(at)
        before = self._lead[slots]
        lead = before + 2 * own - total
        lost = lead < 0
        self._candidate[slots[lost]] = first[lost]
        newcomers = 2 * most[lost].astype(np.int64) - total[lost]
        # Less the lead that was lost: else one burst every 4 s would cancel all that an instance with 60 % has gained.
        lead[lost] = np.maximum(newcomers - before[lost], 0)
        self._lead[slots] = lead
        # In this second it led by the full amount: a window may hold no other second.
        lead[lost] = np.maximum(newcomers, 0)
        self._weight[slots] += total
        # Without this bound, the weight of a burst that no instance led, or of busier times, would hide a leader for
        # minutes.
        most_weight = MOST_WEIGHT / len(seconds) * total
        leads = lead > LEAST_LEAD * np.minimum(self._weight[slots], most_weight)
        slots, lead = slots[leads], lead[leads]
        earlier = np.where(self._last[slots] > newest - FORGET_AFTER, self._greatest[slots], 0)
        self._greatest[slots] = np.maximum(earlier, lead)
        self._last[slots] = newest


def _votes(seconds: Sequence[Second]) -> tuple[Ints, Ints, Ints]:
    """Return slot, instance and requests of each entry (n,); each pair of slot and instance occurs once, ascending."""
    if len(seconds) == 1:
        only = seconds[0]
        return only.instance_rows, only.instance_ids, only.instance_columns[REQUESTS]
    columns = ([s.instance_rows for s in seconds], [s.instance_ids for s in seconds])
    rows, instances = (np.concatenate(parts) for parts in columns)
    requests = np.concatenate([s.instance_columns[REQUESTS] for s in seconds], dtype=np.int64)
    return summed(rows, instances, requests)
