"""Requests whose variant of a flag could not be read.

Each may belong to any variant of its flag, so it counts as missing in all of them, if such requests are more than the
tolerated share of those that carry the flag.
"""

from __future__ import annotations

import numpy as np

from detectors.arrays import Int
from detectors.cells import REQUESTS
from detectors.missing.flag_slots import FlagSlots
from detectors.missing.missing_samples import MOST_MISSING
from detectors.missing.recent import recent
from detectors.windows.store import WindowStore


class UnreadVariants:
    """The requests of unread variant in the windows of `store`; arrays have shape (triggers,)."""

    def __init__(self, flags: FlagSlots, store: WindowStore) -> None:
        self._store = store
        self._flags = flags
        self._places = flags.unread_places()
        self._services = flags.service_rows
        self._windows = {seconds: store.unread.window(seconds) for seconds in flags.lengths}
        self._found: dict[int, tuple[int, Int, Int]] = {}

    def over(self, seconds: int) -> Int | None:
        """Return how many requests of a window may belong to each trigger's variant; None if there are none.

        It is 0 up to the tolerated share.
        """
        if seconds not in self._windows or not self._windows[seconds].any():
            return None
        unread, carried = self._counted(seconds)
        much = unread * (100 * unread > MOST_MISSING * (carried + unread))
        found = self._flags.by_trigger(much)
        return found if found.any() else None

    def recent(self) -> Int | None:
        """Return the same as `over`, of the last minute, or of a minute like the newest second if that has more."""
        return recent(self.over, self._store.display)

    def share(self, i: int, seconds: int) -> tuple[int, int]:
        """Return, of the requests of a window that carry the flag of trigger `i`, those of unread variant, and all."""
        unread, carried = self._counted(seconds)
        number = int(self._flags.of[i])
        return int(unread[number]), int(unread[number] + carried[number])

    def _counted(self, seconds: int) -> tuple[Int, Int]:
        """Return, by flag, the requests of unread variant and those whose variant was read."""
        end = self._store.end or 0
        found = self._found.get(seconds)
        if found is None or found[0] != end:
            found = self._found[seconds] = end, self._windows[seconds].read(self._places), self._carried(end, seconds)
        return found[1:]

    def _carried(self, end: int, seconds: int) -> Int:
        """Return the requests by flag. For a window longer than the display window, the count of the display window is
        extrapolated, up to the requests of its service."""
        store = self._store
        _, slots, of = self._flags.places()
        whole = max(store.span(seconds), 1)
        known = min(whole, store.display)
        carried = np.zeros(len(self._flags.flags), dtype=np.int64)
        np.add.at(carried, of, store.by_second.read(slots, REQUESTS, end - known, end).sum(axis=0))
        if whole > known:
            carried = carried * whole // known
            rows = self._services[seconds]
            of_service = store.window(seconds).sums[REQUESTS][rows]
            carried = np.where(rows >= 0, np.minimum(carried, of_service), carried)
        return carried
