"""The slots in the store of the services of flags and of all their variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from detectors.arrays import Int
from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec
from detectors.windows.store import WindowStore
from detectors.windows.unreadable import unreadable


class Places(NamedTuple):
    """`services` (flags,) are the slots of each flag's service, -1 if it has none; `variants` (v,) are the slots of all
    variants, and `of` (v,) the flag number of each."""

    services: Int
    variants: Int
    of: Int


class FlagSlots:
    """The flags whose variants `specs` judge; `flags` are (environment, service, flag)."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._specs = specs
        self._store = store
        self.flags = list(
            dict.fromkeys((s.environment, s.service, s.flag) for s in specs if s.condition.variant is not None)
        )
        self._number = {flag: number for number, flag in enumerate(self.flags)}
        self.of = np.array(
            [-1 if s.condition.variant is None else self._number[s.environment, s.service, s.flag] for s in specs],
            dtype=np.int64,
        )
        """By trigger: the number of its flag, -1 if it judges the whole service."""
        nothing = np.zeros(0, dtype=np.int64)
        self._places: tuple[int, Places] = -1, Places(nothing, nothing, nothing)

    @cached_property
    def lengths(self) -> frozenset[int]:
        """Seconds of the windows in which a variant is checked for missing samples: those of the triggers that judge
        one, the newest second and the display window."""
        judged = [s for s in self._specs if s.condition.variant is not None]
        return frozenset({1, self._store.display, *(n for s in judged for n in s.windows)} if judged else ())

    @cached_property
    def service_rows(self) -> Mapping[int, Int]:
        """Rows (flags,) of the flags' services in each window longer than the display window, -1 if not kept."""
        services = [Scope(environment, service) for environment, service, _ in self.flags]
        return {
            seconds: np.array([self._store.row(scope, seconds) for scope in services], dtype=np.int64)
            for seconds in self.lengths
            if seconds > self._store.display
        }

    def unread_places(self) -> Int:
        """Return the places (flags,) in `WindowStore.unread` of unreadable variants. Call it before the first
        second."""
        unread = self._store.unread
        places = [unread.place(Scope(*of[:2]), unreadable("variant", of[2])) for of in self.flags]
        return np.array(places, dtype=np.int64)

    def by_trigger(self, counts: Int) -> Int:
        """Map counts (flags,) to (triggers,), 0 for triggers that judge a whole service."""
        found: Int = counts[self.of] * (self.of >= 0)
        return found

    def places(self) -> Places:
        """Return the slots as the store has them now."""
        store = self._store
        if self._places[0] != store.scope_changes:
            services = [store.slot(Scope(environment, service)) for environment, service, _ in self.flags]
            # This loops over all scopes, so only if one came or went.
            found = [
                (store.slot(scope), self._number[scope[:3]]) for scope in store.scopes() if scope[:3] in self._number
            ]
            self._places = (
                store.scope_changes,
                Places(
                    np.array(services, dtype=np.int64),
                    np.array([slot for slot, _ in found], dtype=np.int64),
                    np.array([number for _, number in found], dtype=np.int64),
                ),
            )
        return self._places[1]
