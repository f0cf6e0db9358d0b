"""Rejected samples of unknown scope, and the scopes in which they may be missing.

If the service of a sample could be read and its variants could not, it may belong to any variant; if the service could
not be read either, to any service of the topic. Such samples count as missing in each window that holds their second,
if they are more than the tolerated share (`detectors.missing.missing_samples`) of the scopes they may belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from detectors.arrays import Int
from detectors.cells import LATE, REJECTED, REQUESTS, Scope
from detectors.conditions.spec import TriggerSpec
from detectors.missing.flag_slots import FlagSlots
from detectors.missing.missing_samples import MOST_MISSING
from detectors.missing.recent import recent
from detectors.state import BEFORE
from detectors.windows.second import Second
from detectors.windows.store import DISPLAY, Want, WindowStore
from detectors.windows.unread_sums import FieldSums, PlaceCounts


def service_wants(specs: Sequence[TriggerSpec]) -> list[Want]:
    """Return the windows of whole services, whose samples the rejected ones are compared with. Windows up to the
    display window keep every scope anyway."""
    judged = [(Scope(s.environment, s.service), s.windows) for s in specs if s.condition.variant is not None]
    return [Want(scope, seconds) for scope, windows in judged for seconds in windows if seconds > DISPLAY]


def window_lengths(specs: Sequence[TriggerSpec]) -> tuple[int, ...]:
    """Return the seconds of all windows that are checked for missing samples: those of the triggers, the newest second
    and the last minute."""
    return tuple(sorted({1, DISPLAY, *(seconds for spec in specs for seconds in spec.windows)}))


class UnattributedLoss:
    """The unattributed samples in the windows of `store`; arrays have shape (triggers,).

    Only seconds with rejected samples are kept, so it costs next to nothing while there are none.
    """

    def __init__(self, flags: FlagSlots, store: WindowStore) -> None:
        self._store = store
        self._flags = flags
        self._services = flags.service_rows
        # By flag: first all rejected samples of its service, then those that are in no variant.
        self._windows = {seconds: FieldSums(seconds) for seconds in flags.lengths}
        self._last_second = BEFORE
        self._topics: Mapping[int, Int] = {}
        self._where: Callable[[int, int], str] = _nowhere
        self._found: dict[int, Int | None] = {}

    def set_topics(self, samples: Mapping[int, Int], where: Callable[[int, int], str] | None) -> None:
        """See `detectors.triggers.evaluator.Evaluator.set_unattributed`."""
        self._topics, self._where = samples, where or _nowhere
        self._found.clear()

    def update(self) -> None:
        """Count the seconds since the last update. It must be called at least once a minute, or longer windows miss
        seconds."""
        if not self._windows:
            return
        for second in self._store.window(self._store.display).seconds_kept:
            if second.second > self._last_second and second.columns[REJECTED].any():
                self._note(second)
        end = self._store.end or 0
        self._last_second = end - 1
        for window in self._windows.values():
            window.move(end, None, 0)
        self._found.clear()

    def over(self, seconds: int) -> Int | None:
        """Return how many rejected samples of a window may belong to each trigger's scopes but are counted in none;
        None if there are none."""
        if seconds not in self._found:
            own, topics = self._of_services(seconds), self._topics.get(seconds)
            self._found[seconds] = topics if own is None else own if topics is None else own + topics
        return self._found[seconds]

    def recent(self) -> Int | None:
        """Return the same as `over`, of the last minute, or of a minute like the newest second if that has more."""
        return recent(self.over, self._store.display)

    def of_topics(self, i: int, seconds: int) -> int:
        """Return how many samples of a window, whose service could not be read, may belong to trigger `i`."""
        return int(self._topics[seconds][i]) if seconds in self._topics else 0

    def where(self, i: int, seconds: int) -> str:
        """Return the topics of those samples, as a text for people."""
        return self._where(i, seconds)

    def _note(self, second: Second) -> None:
        """Count the rejected samples of a second, by flag."""
        services, slots, of = self._flags.places()
        flags = len(services)
        rejected = np.zeros(self._store.max_scopes, dtype=np.int64)
        rejected[second.rows] = second.columns[REJECTED]
        counts = np.zeros(2 * flags, dtype=np.int64)
        counts[:flags] = rejected[services] * (services >= 0)
        attributed = np.zeros(flags, dtype=np.int64)
        np.add.at(attributed, of, rejected[slots])
        counts[flags:] = np.maximum(counts[:flags] - attributed, 0)
        at = np.flatnonzero(counts)
        if len(at):
            for window in self._windows.values():
                window.move(second.second + 1, PlaceCounts(second.second, at, counts[at]), 2 * flags)

    def _of_services(self, seconds: int) -> Int | None:
        """Return the rejected samples of a window whose service could be read, by trigger; None if there are none."""
        window = self._windows.get(seconds)
        if window is None or not window.any():
            return None
        flags = len(self._flags.flags)
        rejected, unknown = window.read(np.arange(2 * flags)).reshape(2, flags)
        much = 100 * rejected > MOST_MISSING * (rejected + self._counted(seconds))
        found = self._flags.by_trigger(unknown * much)
        return found if found.any() else None

    def _counted(self, seconds: int) -> Int:
        """Return, by flag, the requests and late samples of its service in a window; 0 if they are not kept."""
        if seconds <= self._store.display:
            end, places = self._store.end or 0, self._flags.places().services
            kept = self._store.by_second
            parts = [kept.read(places, column, end - seconds, end).sum(axis=0) for column in (REQUESTS, LATE)]
        else:
            places = self._services[seconds]
            sums = self._store.window(seconds).sums
            parts = [sums[column][places] for column in (REQUESTS, LATE)]
        found: Int = (parts[0] + parts[1]) * (places >= 0)
        return found


def _nowhere(_: int, __: int) -> str:
    return ""
