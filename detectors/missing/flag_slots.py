"""Where in the store the services of flags and all their variants are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detectors.arrays import Int
from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec
from detectors.windows.store import WindowStore


class Places(NamedTuple):
    """`services` (flags,) are the slots of each flag's service, -1 where it has none; `variants` (v,) those of all
    variants, and `of` (v,) the flag of each."""

    services: Int
    variants: Int
    of: Int


class FlagSlots:
    """The flags of which `specs` judge a variant; `flags` are (environment, service, flag)."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._store = store
        self.flags = list(
            dict.fromkeys((s.environment, s.service, s.flag) for s in specs if s.condition.variant is not None)
        )
        self._number = {flag: number for number, flag in enumerate(self.flags)}
        self.of = np.array(
            [-1 if s.condition.variant is None else self._number[s.environment, s.service, s.flag] for s in specs],
            dtype=np.int64,
        )
        """By trigger: the number of its flag, -1 where it judges the whole service."""
        nothing = np.zeros(0, dtype=np.int64)
        self._places: tuple[int, Places] = -1, Places(nothing, nothing, nothing)

    def places(self) -> Places:
        """As the store is now."""
        store = self._store
        if self._places[0] != store.scope_changes:
            services = [store.slot(Scope(environment, service)) for environment, service, _ in self.flags]
            # A loop over all scopes: only when one came or went.
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
