"""What triggers need of the telemetry, and what therefore always has a place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from detectors.cells import Scope


@dataclass(frozen=True, slots=True)
class WatchList:
    """What triggers need: scopes that always have a place, and flags whose variants become scopes.

    `flags` has the watched flags of each (environment, service), `limits` the latency limits of each service in
    milliseconds, ascending.
    """

    scopes: tuple[Scope, ...]
    flags: Mapping[tuple[str, str], frozenset[str]]
    measures: frozenset[str]
    limits: Mapping[Scope, tuple[float, ...]]

    @classmethod
    def of(
        cls, scopes: Iterable[Scope], measures: Iterable[str] = (), limits: Iterable[tuple[str, str, float]] = ()
    ) -> WatchList:
        """Build it from the scopes, measure names and latency limits of all triggers.

        A limit is environment, service and milliseconds; the service's scope gets a place too. A scope with a flag and
        without a variant makes the flag watched, but reserves no place for its variants.
        """
        reserved: set[Scope] = set()
        flags: dict[tuple[str, str], set[str]] = {}
        for scope in scopes:
            reserved.add(Scope(scope.environment, scope.service))
            if scope.flag:
                flags.setdefault((scope.environment, scope.service), set()).add(scope.flag)
                if scope.variant:
                    reserved.add(scope)
        watched = {service: frozenset(names) for service, names in flags.items()}
        crossed: dict[Scope, set[float]] = {}
        for environment, service, limit in limits:
            crossed.setdefault(Scope(environment, service), set()).add(limit)
        ascending = {scope: tuple(sorted(limits_of)) for scope, limits_of in crossed.items()}
        return cls(tuple(sorted(reserved | crossed.keys())), watched, frozenset(measures), ascending)
