"""The fast tier of triggers: a gross failure fires them within seconds, whatever their window and `for`.

The statistic of `detectors.sequential.fast_tier` on the bad requests of each second. Its null rate r0 is the rate of
the worse healthy minutes of the service (`detectors.sequential.healthy_rate`), but at least the trigger's own limit.

Samples missing in a second (late, rejected or without an outcome) count as healthy requests. The e-value falls with
each healthy request and rises with each bad one, so the evidence is never more than with complete data: an alarm in
spite of missing samples is valid. The healthy rate is learnt only from seconds that lack no more than 1 %: from others
it would be too low, and cause false alarms the next day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Int
from detectors.conditions.spec import TriggerSpec
from detectors.sequential.fast_tier import FastTier, FastTierConfig
from detectors.sequential.healthy_rate import HOURS, MINUTE, HealthyRate, HealthyRateConfig
from detectors.state import BEFORE, Arrays, checked_state, part, prefixed
from detectors.triggers.bad_counts import BadCounts
from detectors.windows.store import WindowStore

_DAY = ("sums", "hour_of")
"""The state of the healthy rate that `FastTriggers.healthy_days` returns: 960 bytes a row; the rest is 200."""

Hour = tuple[int, float, float, float, float, float]


class Day(NamedTuple):
    """What a row has learnt before second `until`: the five sums of `detectors.sequential.healthy_rate` for each
    hour."""

    until: int
    hours: tuple[Hour, ...]


class FastTriggers:
    """The n fast triggers among `specs`; `at` (n,) are their trigger numbers. Arrays have shape (n,).

    `alarm`, `evidence` (nats), `bound`, `r0` and `since` (the second in which the evidence began) are as of the newest
    second.
    """

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        chosen = [
            (i, spec, limit) for i, spec in enumerate(specs) if spec.fast and (limit := spec.bad_limit) is not None
        ]
        n = len(chosen)
        self.at = np.array([i for i, _, _ in chosen], dtype=np.int64)
        self._limit = np.array([limit for _, _, limit in chosen])
        self._counts = BadCounts(store, [(spec, spec.scope) for _, spec, _ in chosen]) if n else None
        if self._counts is not None:
            timed = [k for k, (_, spec, _) in enumerate(chosen) if spec.condition.metric == "latency_quantile"]
            limits = [chosen[k][1].threshold for k in timed]
            self._counts.set_limit(np.array(timed, dtype=np.int64), np.array(limits, dtype=np.float64))
        gammas = np.array([spec.false_alarms for _, spec, _ in chosen], dtype=np.float64)
        # A statistic has one mean time between false alarms, so there is one for each such time among the triggers.
        self._tiers = [
            (rows, FastTier(len(rows), FastTierConfig(gamma=float(gamma))))
            for gamma in np.unique(gammas)
            for rows in (np.flatnonzero(gammas == gamma),)
        ]
        self.healthy = HealthyRate(n, HealthyRateConfig())
        self._counted_until = np.full(n, BEFORE, dtype=np.int64)
        self.alarm = np.zeros(n, dtype=np.bool_)
        self.evidence = np.full(n, -np.inf)
        self.bound = np.log(gammas)
        self.r0 = self.healthy.rate(self._limit)
        self.since = np.full(n, BEFORE, dtype=np.int64)

    def update(self, second: int, *, pending: Bool, firing: Bool, begin: Int, unattributed: Int | None = None) -> None:
        """Add the newest second. Requests before second `begin` (n,) are no evidence.

        `pending` and `firing` (n,) are the states before this second. `unattributed` (n,) samples were rejected in the
        last minute and may belong to the trigger.
        """
        if self._counts is None:
            return
        bad, known = self._counts.read()
        whole, clear = known, np.ones(len(known), dtype=np.bool_)
        missing = self._counts.missing()
        if missing is not None:
            whole, clear = known + missing.lost, ~missing.much
        if unattributed is not None:
            whole, clear = whole - (-unattributed // MINUTE), clear & (unattributed == 0)
        early = begin > second
        counted = np.where(early, 0, whole)
        starts = (counted > 0) & (self.evidence <= 0)
        self.since[starts] = second
        self.r0 = self.healthy.rate(self._limit)
        for rows, tier in self._tiers:
            tier.reset(early[rows])
            self.alarm[rows] = tier.update(second, np.minimum(bad, counted)[rows], counted[rows], self.r0[rows])
            self.evidence[rows] = tier.evidence
        fresh = second >= self._counted_until
        fresh &= clear
        self.healthy.update(second, bad * fresh, known * fresh, pending=pending, firing=firing | self.alarm)

    def healthy_days(self) -> dict[int, Day]:
        """Return what each row has learnt, by trigger number, without the minutes in quarantine."""
        if not len(self.at):
            return {}
        state = self.healthy.state()
        second, hour_of, sums = int(state["second"]), state["hour_of"], state["sums"]
        until = (second // MINUTE - self.healthy.config.quarantine) * MINUTE
        slots = [int(slot) for slot in np.argsort(hour_of) if hour_of[slot] > second // (MINUTE * MINUTE) - HOURS]
        found = {}
        for row, number in enumerate(self.at.tolist()):
            hours = tuple(
                (int(hour_of[slot]), *sums[slot, :, row].tolist()) for slot in slots if sums[slot, 0, row] > 0
            )
            found[number] = Day(until, hours)
        return found

    def restore_healthy_days(self, days: Mapping[int, Day]) -> None:
        """Restore what was learnt, before the first second. Seconds that it contains are not counted again."""
        rows = {number: row for row, number in enumerate(self.at.tolist())}
        state = self.healthy.state()
        hour_of, sums = state["hour_of"], state["sums"]
        for number, day in days.items():
            for hour, *values in day.hours:
                slot = hour % HOURS
                if hour > hour_of[slot]:
                    hour_of[slot], sums[slot] = hour, 0
                if hour == hour_of[slot]:
                    sums[slot, :, rows[number]] = values
            self._counted_until[rows[number]] = day.until
        self.healthy.restore(state)
        self.r0 = self.healthy.rate(self._limit)

    def state(self) -> Arrays:
        """Return copies of all its state, except `healthy_days`, which are kept for longer elsewhere."""
        healthy = {name: array for name, array in self.healthy.state().items() if name not in _DAY}
        own = {
            "counted_until": self._counted_until.copy(),
            "alarm": self.alarm.copy(),
            "evidence": self.evidence.copy(),
            "since": self.since.copy(),
        }
        tiers = {f"tier{i}": tier.state() for i, (_, tier) in enumerate(self._tiers)}
        return prefixed(own=own, healthy=healthy, **tiers)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned; the healthy days stay. Raises StateError, and changes nothing, if it
        does not fit."""
        arrays = checked_state(state, self.state())
        self.healthy.restore({**self.healthy.state(), **part(arrays, "healthy")})
        for i, (_, tier) in enumerate(self._tiers):
            tier.restore(part(arrays, f"tier{i}"))
        own = part(arrays, "own")
        self._counted_until = np.maximum(own["counted_until"], self._counted_until)
        self.alarm, self.evidence, self.since = own["alarm"], own["evidence"], own["since"]
        self.r0 = self.healthy.rate(self._limit)

    def reset(self, rows: Bool) -> None:
        """Discard the evidence of these rows (n,): a new version of the flag, or too long without samples."""
        for own, tier in self._tiers:
            tier.reset(rows[own])
            self.evidence[own] = tier.evidence
        self.alarm[rows] = False
