"""Reads a shard's windows after a flip: the requests that still get the flag's variants, and the metric that fired.

It computes only what is asked for: while no flip is watched, a second costs nothing here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from detectors.arrays import Int
from detectors.cells import LATE, REJECTED, REQUESTS, Scope
from detectors.conditions.spec import TriggerSpec
from detectors.missing.missing_samples import asks_outcome, missing_of
from detectors.sequential.likelihood_ratio import signed_likelihood_ratio
from detectors.windows.metrics import compute
from detectors.windows.overdue import limit_of
from detectors.windows.ratios import RATIO_PARTS
from detectors.windows.store import Want, WindowStore
from detectors.windows.unreadable import unreadable, unreadable_of

_LEAST_OTHERS = 20
"""Requests with other variants from which on the exposure is counted from the first of them."""

Service = tuple[str, str, str]
"""Environment, service, and a watched flag of the service."""


class Exposure(msgspec.Struct, frozen=True):
    """Requests a second of a service: with a variant of the flag other than the safe one, with any variant, and all."""

    others: float
    variants: float
    requests: float


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in each of some seconds, oldest first, with the fields of `Exposure`, and `late` samples of the service.

    Every array is int64 of shape (seconds,). `lost` is a total over these seconds: the service's rejected samples, and
    its requests whose variant of the flag could not be read.
    """

    others: Int
    variants: Int
    requests: Int
    late: Int
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric over the window of a trigger; `value` is nan if it has none. `late` samples are not among `samples`.

    `lacking` says that more samples are missing than may be overlooked (`detectors.missing.missing_samples`).
    """

    value: float
    samples: int
    requests: int
    late: int
    lacking: bool = False


def flip_wants(specs: Sequence[TriggerSpec]) -> list[Want]:
    """The windows that `Observer.measure` needs besides those of the triggers: its variant may get no traffic."""
    return [
        Want(whole(spec), spec.condition.over, spec.condition.metric == "latency_quantile")
        for spec in specs
        if spec.action == "rollback" and spec.condition.variant is not None
    ]


def whole(spec: TriggerSpec) -> Scope:
    """The scope of all requests of the trigger's service."""
    return Scope(spec.environment, spec.service)


class Observer:
    """Reads the windows of `store`, as they are at its newest second, for the flags that `specs` watch."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._store = store
        self._safe = {(s.environment, s.service, s.flag): s.safe_variant for s in specs}
        self._slots: dict[Service, tuple[list[int], list[int]]] = {}
        self._indexed_at = -1
        self.triggers = {(s.environment, s.service, s.flag, s.name): s for s in specs}
        self.services: dict[tuple[str, str], list[str]] = {}
        """The services in which each (environment, flag) is watched."""
        for environment, service, flag in self._safe:
            self.services.setdefault((environment, flag), []).append(service)
        store.unread.window(store.display)
        for environment, service, flag in self._safe:
            store.unread.place(Scope(environment, service), unreadable("variant", flag))
        for spec in specs:
            store.unread.window(spec.condition.over)
            for scope in (spec.scope, whole(spec)):
                self._unread_places(spec, scope)

    def exposure(self, environment: str, service: str, flag: str) -> Exposure:
        """The exposure over the last minute, or since the first request with another variant in it.

        If a rollout has just begun, the average over the whole minute would be too low.
        """
        found = self.requests(environment, service, flag, since=0)
        begin = 0
        if found.others.sum() >= _LEAST_OTHERS:
            # The time of the first of only a few requests is an accident.
            begin = int(np.flatnonzero(found.others)[0])
        seconds = max(len(found.others) - begin, 1)
        others, variants, requests = (
            int(column[begin:].sum()) / seconds for column in (found.others, found.variants, found.requests)
        )
        return Exposure(others, variants, requests)

    def requests(self, environment: str, service: str, flag: str, *, since: int) -> Requests:
        """The requests of each second from `since` on, at most of the last minute."""
        end = self._store.end or 0
        since = min(max(since, end - self._store.span(self._store.display)), end)
        others, safe = self._variants((environment, service, flag))
        slot = self._store.row(Scope(environment, service), self._store.display)
        own = [slot] if slot >= 0 else []
        by_second = self._store.by_second
        rows = np.array([*others, *safe, *own], dtype=np.int64)
        counts = by_second.read(rows, REQUESTS, since, end)
        late = by_second.read(np.array(own, dtype=np.int64), LATE, since, end)
        variants = len(others) + len(safe)
        return Requests(
            counts[:, : len(others)].sum(axis=1),
            counts[:, :variants].sum(axis=1),
            counts[:, variants:].sum(axis=1),
            late.sum(axis=1),
            self._lost((environment, service, flag), since),
        )

    def _lost(self, of: Service, since: int) -> int:
        """See `Requests.lost`."""
        environment, service, flag = of
        scope, display = Scope(environment, service), self._store.display
        place = self._store.unread.place(scope, unreadable("variant", flag))
        unread = self._store.unread.window(display).since(place, since)
        row = self._store.row(scope, display)
        if row < 0 or not self._store.window(display).sums[REJECTED, row]:
            return unread
        return unread + int(self._store.counts(scope, display, since)[REJECTED])

    def serving(self, environment: str, service: str, flag: str, *, since: int) -> list[str]:
        """The instances that served variants other than the safe one from `since` on, the busiest first."""
        found: Counter[str] = Counter()
        for scope in self._store.scopes():
            if scope[:3] == (environment, service, flag) and scope.variant != self._safe[environment, service, flag]:
                counts = self._store.instances(scope, self._store.display, since)
                found.update({name: int(own[REQUESTS]) for name, own in counts.items() if name and own[REQUESTS]})
        return sorted(found, key=lambda name: (-found[name], name))

    def by_variant(self, environment: str, service: str, flag: str, *, since: int) -> dict[str, Int]:
        """The counts (len(COUNTS),) of each variant of a flag from `since` on, at most of the last minute."""
        return {
            scope.variant: self._store.counts(scope, self._store.display, since)
            for scope in self._store.scopes()
            if scope[:3] == (environment, service, flag)
        }

    def measure(self, spec: TriggerSpec, scope: Scope) -> Measurement:
        """The trigger's metric over its window, in its own scope or in that of the whole service."""
        condition = spec.condition
        row = self._store.row(scope, condition.over)
        if condition.metric == "absence":
            # After a flip the variant has no requests, as intended.
            return Measurement(math.nan, 0, 0, 0)
        value, samples = compute(
            self._store,
            condition.over,
            condition.metric,
            np.array([row], dtype=np.int64),
            quantile=condition.quantile or 0.5,
            measure=condition.measure,
            limit_ms=limit_of(spec),
        )
        if row < 0:
            return Measurement(float(value[0]), 0, 0, 0)
        sums = self._store.window(condition.over).sums
        unread, variant = self._store.unread.window(condition.over).read(self._unread_places(spec, scope))
        missing = missing_of(
            lambda column: sums[column, row : row + 1],
            outcome=asks_outcome(condition.metric),
            unread=unread,
            read=samples,
            variant=variant,
        )
        late = int(sums[LATE, row])
        return Measurement(float(value[0]), int(samples[0]), int(sums[REQUESTS, row]), late, bool(missing.much[0]))

    def _unread_places(self, spec: TriggerSpec, scope: Scope) -> Int:
        """The places (2,) of the metric's unreadable values in a scope, and of requests that may be of its variant."""
        place = self._store.unread.place
        variant = unreadable("variant", scope.flag) if scope.flag else None
        return np.array([place(scope, unreadable_of(spec.condition)), place(whole(spec), variant)], dtype=np.int64)

    def proof(self, spec: TriggerSpec) -> float | None:
        """How much worse the flag's other variants are than its safe one, in nats; None if the metric is no ratio.

        See `detectors.sequential.likelihood_ratio`.
        """
        ratio = RATIO_PARTS.get(spec.condition.metric)
        if ratio is None:
            return None
        others, safe = self._variants((spec.environment, spec.service, spec.flag))
        sums = self._store.window(self._store.display).sums

        def counted(rows: list[int]) -> tuple[int, int]:
            return ratio.bad(lambda column: int(sums[column, rows].sum()))

        (treated_bad, treated), (control_bad, control) = counted(others), counted(safe)
        return signed_likelihood_ratio(treated_bad, treated, control_bad, control)

    def control(self, spec: TriggerSpec) -> Measurement | None:
        """The trigger's metric over the last minute in the flag's safe variant; None if it has no requests."""
        _, safe = self._variants((spec.environment, spec.service, spec.flag))
        if not safe:
            return None
        condition, display = spec.condition, self._store.display
        value, samples = compute(
            self._store,
            display,
            condition.metric,
            np.array(safe[:1], dtype=np.int64),
            quantile=condition.quantile or 0.5,
            measure=condition.measure,
            limit_ms=limit_of(spec),
        )
        sums = self._store.window(display).sums
        return Measurement(float(value[0]), int(samples[0]), int(sums[REQUESTS, safe[0]]), int(sums[LATE, safe[0]]))

    def _variants(self, of: Service) -> tuple[list[int], list[int]]:
        """The slots of the flag's variants in the service: those of the other variants, and that of the safe one."""
        if self._indexed_at != self._store.scope_changes:
            # The loop over all scopes takes 2 ms for 2,000 of them, so it runs only after a scope has come or gone.
            self._indexed_at = self._store.scope_changes
            self._slots = {key: ([], []) for key in self._safe}
            for scope in self._store.scopes():
                found = self._slots.get(scope[:3]) if scope.flag else None
                if found is not None:
                    safe = scope.variant == self._safe[scope[:3]]
                    found[safe].append(self._store.row(scope, self._store.display))
        return self._slots[of]
