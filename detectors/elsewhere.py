"""Rejected samples of which it is not known whose they are, and in which scopes they may be missing.

Where a service could be read and the variants could not, every variant may be meant; where not even that, every service
of the topic. They count once they are more than may be overlooked (`detectors.missing`) of what they may be of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.cells import REJECTED
from detectors.flag_slots import FlagSlots
from detectors.missing import MOST_MISSING, missing_of
from detectors.seconds import Int
from detectors.spec import TriggerSpec
from detectors.windows import DISPLAY, WindowStore


class Elsewhere:
    """Of the last minute, by the display window; arrays have shape (triggers,)."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._store = store
        self._flags = FlagSlots(specs, store)
        self.topics: Int | None = None
        """Samples (triggers,) of the topics of which not even the service could be read; None where there are none."""

    def samples(self) -> Int | None:
        """Rejected samples that may have been of a trigger's scopes and are in none; None where there are none."""
        sums = self._store.window(self._store.display).sums
        if not self._flags.flags or not sums[REJECTED].any():
            return self.topics
        services, slots, of = self._flags.places()
        known = services >= 0
        counts: Int = sums[:, services] * known
        service = missing_of(counts.__getitem__, outcome=False)
        attributed = np.zeros(len(services), dtype=np.int64)
        np.add.at(attributed, of, sums[REJECTED][slots])
        much = 100 * service.rejected > MOST_MISSING * service.total
        rejected: Int = np.maximum(service.rejected - attributed, 0) * much
        found: Int = rejected[self._flags.of] * (self._flags.of >= 0)
        if self.topics is not None:
            found += self.topics
        return found if found.any() else None


def over_window(samples: Int, seconds: int) -> Int:
    """How many of a window are taken for rejected where so many of the last minute were; never less than those."""
    found: Int = -(-samples * max(seconds, DISPLAY) // DISPLAY)
    return found
