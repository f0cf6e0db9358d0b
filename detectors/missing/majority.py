"""Which slots have an instance that sends more than half of the requests, found without a count for every instance.

A weighted majority vote (Boyer and Moore, "MJRTY: A Fast Majority Vote Algorithm", 1991) by slot: a candidate gains
what it sends and loses what all others send; whoever sends most takes the place of a candidate that has lost
everything. So a majority that lasts becomes the candidate, and keeps a lead. By single seconds instead, every service
of little traffic would have a majority: of 10 requests from 3 instances, one has 6 or more in a fifth of all seconds.
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
"""What is left of a lead, and of the weight that it is compared with, after a second."""

MEMORY: Final = 1 / (1 - FADE)
"""Seconds of even traffic that the weight amounts to."""

MOST_WEIGHT: Final = 2 * MEMORY
"""Seconds of such traffic as that of the second that the weight counts for at most: of one request a second from three
instances, 8 % of windows of 10 s then have a leader by chance, not 4 %; of three requests a second, none."""

LEAST_LEAD: Final = 0.05
"""Part of the weight that a candidate must lead by, as it does with 52.5 % and more: chance seldom leads by that."""

SURE_LEAD: Final = 0.12
"""By how much of the requests a candidate leads that the vote finds by `LEAST_LEAD` whatever came before: with 56 %."""

FORGET_AFTER: Final = 3600
"""Seconds after which the greatest lead is forgotten; no window is longer."""


class Majority:
    """The vote in each of `slots` slots; give it every second once, ascending."""

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
        """In which slots a candidate led, from `since` on, by enough to have a `share` of more than half among so many
        requests in so many seconds. All are (s,); no slot is negative; a share of less than half is taken for half."""
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
        # Sums of differences: of 30,000 entries `repeat` and `reduceat` take 0.4 ms, these 0.1 ms.
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
        # Less the lead that was lost: else one burst every 4 s would take all that 60 % of the requests have gained.
        lead[lost] = np.maximum(newcomers - before[lost], 0)
        self._lead[slots] = lead
        # In this second it led by all of that: a window may hold no other one.
        lead[lost] = np.maximum(newcomers, 0)
        self._weight[slots] += total
        # The weight of a burst that nobody led, or of busier times, would hide the present leader for minutes.
        most_weight = MOST_WEIGHT / len(seconds) * total
        leads = lead > LEAST_LEAD * np.minimum(self._weight[slots], most_weight)
        slots, lead = slots[leads], lead[leads]
        earlier = np.where(self._last[slots] > newest - FORGET_AFTER, self._greatest[slots], 0)
        self._greatest[slots] = np.maximum(earlier, lead)
        self._last[slots] = newest


def _votes(seconds: Sequence[Second]) -> tuple[Ints, Ints, Ints]:
    """The slot, the instance and the requests of each entry (n,), each pair of slot and instance once, ascending."""
    if len(seconds) == 1:
        only = seconds[0]
        return only.instance_rows, only.instance_ids, only.instance_columns[REQUESTS]
    columns = ([s.instance_rows for s in seconds], [s.instance_ids for s in seconds])
    rows, instances = (np.concatenate(parts) for parts in columns)
    requests = np.concatenate([s.instance_columns[REQUESTS] for s in seconds], dtype=np.int64)
    return summed(rows, instances, requests)
