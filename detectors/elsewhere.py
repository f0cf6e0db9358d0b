"""Rejected samples of which it is not known whose they are, and in which scopes they may be missing.

Where a service could be read and the variants could not, every variant may be meant; where not even that, every service
of the topic. They count once they are more than may be overlooked (`detectors.missing`) of what they may be of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.cells import REJECTED, Scope
from detectors.missing import MOST_MISSING, missing_of
from detectors.seconds import Int
from detectors.spec import TriggerSpec
from detectors.windows import DISPLAY, WindowStore


class Elsewhere:
    """Of the last minute, by the display window; arrays have shape (triggers,)."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._store = store
        flags = {(s.environment, s.service, s.flag): None for s in specs if s.condition.variant is not None}
        self._number = {flag: number for number, flag in enumerate(flags)}
        self._of = np.array(
            [-1 if s.condition.variant is None else self._number[s.environment, s.service, s.flag] for s in specs],
            dtype=np.int64,
        )
        nothing = np.zeros(0, dtype=np.int64)
        self._variants: tuple[int, Int, Int, Int] = -1, nothing, nothing, nothing
        self.topics: Int | None = None
        """Samples (triggers,) of the topics of which not even the service could be read; None where there are none."""

    def samples(self) -> Int | None:
        """Rejected samples that may have been of a trigger's scopes and are in none; None where there are none."""
        sums = self._store.window(self._store.display).sums
        if not len(self._number) or not sums[REJECTED].any():
            return self.topics
        services, slots, of = self._places()
        known = services >= 0
        counts: Int = sums[:, services] * known
        service = missing_of(counts.__getitem__, outcome=False)
        attributed = np.zeros(len(services), dtype=np.int64)
        np.add.at(attributed, of, sums[REJECTED][slots])
        much = 100 * service.rejected > MOST_MISSING * service.total
        rejected: Int = np.maximum(service.rejected - attributed, 0) * much
        found: Int = rejected[self._of] * (self._of >= 0)
        if self.topics is not None:
            found += self.topics
        return found if found.any() else None

    def _places(self) -> tuple[Int, Int, Int]:
        """The slot of each flag's service, -1 where it has none; the slots of all variants, and the flag of each."""
        store = self._store
        if self._variants[0] != store.scope_changes:
            services = [store.slot(Scope(environment, service)) for environment, service, _ in self._number]
            # A loop over all scopes: only when one came or went.
            found = [
                (store.slot(scope), self._number[scope[:3]]) for scope in store.scopes() if scope[:3] in self._number
            ]
            self._variants = (
                store.scope_changes,
                np.array(services, dtype=np.int64),
                np.array([slot for slot, _ in found], dtype=np.int64),
                np.array([number for _, number in found], dtype=np.int64),
            )
        return self._variants[1:]


def over_window(samples: Int, seconds: int) -> Int:
    """How many of a window are taken for rejected where so many of the last minute were; never less than those."""
    found: Int = -(-samples * max(seconds, DISPLAY) // DISPLAY)
    return found
