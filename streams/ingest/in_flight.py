"""Requests of one source partition that have started and not ended: when each becomes older than a latency limit.

`detectors.windows.overdue` reads the crossings. A crossing counts in the second in which the request's age passes the
limit, once that second is closed or the request has ended after it. So crossings depend on the order of the samples and
on the closed seconds, not on how samples are divided into batches. A request takes about 0.5 kB while it runs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from detectors.cells import COUNTS
from detectors.windows.overdue import LONGEST_MS
from streams.decoders.interner import LatencyLimit
from streams.grouped_sums import summed
from streams.ingest.block import Block

MOST: Final = 100_000
"""Requests that are followed at once. One more replaces the oldest, which counts as usual when it ends."""
_LONGEST: Final = LONGEST_MS / 1000

Key = tuple[int, str]
"""Number of the service's scope and id of the request."""


class Crossing(NamedTuple):
    """An addition of `adds`, +1 or -1, to the sum of the measure number `measure` of a scope in a second."""

    second: int
    scope: int
    measure: int
    adds: int
    offset: int
    instance: str


class _Request:
    """A running request. It has crossed the first `crossed` of its `limits`, and crosses the next in second `due`."""

    __slots__ = ("began", "crossed", "due", "instance", "key", "limits", "offset", "scopes")

    def __init__(
        self,
        key: Key,
        began: float,
        offset: int,
        scopes: tuple[int, ...],
        instance: str,
        limits: tuple[LatencyLimit, ...],
    ) -> None:
        self.key = key
        self.began = began
        self.offset = offset
        self.scopes = scopes
        self.instance = instance
        self.limits = limits
        self.crossed = 0
        self.due = 0


class InFlight:
    """The running requests of one source partition, and the crossings since the last `take`."""

    def __init__(self) -> None:
        self.forgotten = 0
        """Requests dropped before they ended: more than MOST ran, or their age passed the longest latency."""
        self._running: OrderedDict[Key, _Request] = OrderedDict()
        self._due: dict[int, dict[Key, _Request]] = {}
        self._closed: float = -math.inf
        self._crossings: list[Crossing] = []

    def __len__(self) -> int:
        return len(self._running)

    def start(
        self,
        key: Key,
        began: float,
        *,
        offset: int,
        scopes: tuple[int, ...],
        instance: str,
        limits: tuple[LatencyLimit, ...],
    ) -> None:
        """Follow a request from `began` (Unix seconds). Of two starts with one key the later counts."""
        known = self._running.get(key)
        if known is not None:
            if began <= known.began:
                return
            self._drop(known)
        elif len(self._running) >= MOST:
            self._drop(next(iter(self._running.values())))
            self.forgotten += 1
        request = self._running[key] = _Request(key, began, offset, scopes, instance, limits)
        self._schedule(request)

    def end(self, key: Key, ended: float, *, offset: int, scopes: tuple[int, ...], instance: str, timed: bool) -> float:
        """End a request at `ended` (Unix seconds); with `timed` its latency counts in the second of `ended`.

        Returns the least value of that latency in milliseconds: a request that has crossed a limit stays above it,
        whatever latency was measured.
        """
        request = self._running.get(key)
        if request is None:
            return 0.0
        self._drop(request)
        least = 0.0
        second = math.floor(ended)
        for index, limit in enumerate(request.limits):
            crossed_now = index >= request.crossed
            if crossed_now:
                if ended <= request.began + limit.seconds:
                    break
                if timed and scopes == request.scopes and self._second(request.began + limit.seconds) == second:
                    # The crossing and its reversal are in the same second and cancel out.
                    least = limit.above_ms
                    continue
                self._cross(request, limit)
            if timed:
                least = limit.above_ms
                self._crossings += [
                    Crossing(second, scope, limit.measure, -1, offset, instance)
                    for scope in scopes
                    if scope in request.scopes
                ]
        return least

    def close(self, boundary: float) -> None:
        """Close all seconds before `boundary`: count the running requests that crossed a limit in them."""
        while ready := sorted(second for second in self._due if second < boundary):
            for second in ready:
                for request in self._due.pop(second).values():
                    if request.crossed == len(request.limits):
                        del self._running[request.key]
                        self.forgotten += 1
                        continue
                    self._cross(request, request.limits[request.crossed])
                    request.crossed += 1
                    self._schedule(request)
        self._closed = max(self._closed, boundary)

    def take(self) -> list[Crossing]:
        """Return the crossings since the last call."""
        taken, self._crossings = self._crossings, []
        return taken

    def _schedule(self, request: _Request) -> None:
        ahead = request.limits[request.crossed].seconds if request.crossed < len(request.limits) else _LONGEST
        request.due = math.floor(request.began + ahead)
        self._due.setdefault(request.due, {})[request.key] = request

    def _drop(self, request: _Request) -> None:
        del self._running[request.key]
        due = self._due[request.due]
        del due[request.key]
        if not due:
            del self._due[request.due]

    def _cross(self, request: _Request, limit: LatencyLimit) -> None:
        second = self._second(request.began + limit.seconds)
        self._crossings += [
            Crossing(second, scope, limit.measure, 1, request.offset, request.instance) for scope in request.scopes
        ]

    def _second(self, at: float) -> int:
        """The second in which a crossing at `at` counts: its own, or the oldest open one if that is closed."""
        return int(max(math.floor(at), self._closed))


def summed_up(crossings: Sequence[Crossing], number: Callable[[str], int]) -> Block:
    """Sum crossings by scope and second; `number` maps an instance to its number."""
    second, scope, measure, adds, offset = (
        np.array(column, dtype=np.int64) for column in zip(*(crossing[:5] for crossing in crossings), strict=True)
    )
    instance = np.array([number(crossing.instance) for crossing in crossings], dtype=np.int64)
    width = int(scope.max()) + 1
    cell_key, cell = np.unique(second * width + scope, return_inverse=True)
    last = np.zeros(len(cell_key), dtype=np.int64)
    np.maximum.at(last, cell, offset)
    instances, measures = int(instance.max()) + 1, int(measure.max()) + 1
    instance_key = np.unique(cell * instances + instance)
    none = np.zeros(0, dtype=np.int64)
    each = np.stack((np.ones(len(adds)), np.maximum(adds, 0), np.maximum(-adds, 0)), axis=1)
    measure_key, sums = summed(cell * measures + measure, each)
    return Block(
        scope=cell_key % width,
        second=cell_key // width,
        offset=last,
        counts=np.zeros((len(cell_key), len(COUNTS)), dtype=np.int64),
        hist_cell=none,
        hist_bin=none,
        hist_count=none,
        # Every cell of a block has an instance, even if it adds no request.
        instance_cell=instance_key // instances,
        instance_id=instance_key % instances,
        instance_counts=np.zeros((len(instance_key), len(COUNTS)), dtype=np.int64),
        measure_cell=measure_key // measures,
        measure_id=measure_key % measures,
        measure_sums=sums,
    )
