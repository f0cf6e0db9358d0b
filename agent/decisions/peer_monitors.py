"""The ill flags of the other monitors: an outage may be spread over services that different monitors judge.

Each monitor publishes the ill flags of the services that it judges, when they change and every few seconds while there
are any. Every monitor follows that topic anyway. A monitor that judges all services publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from agent.decisions.turns import FlagKey
from agent.state.incidents import Ill
from agent.state.state_tables import StateTables
from detectors.conditions.spec import TriggerSpec

REPEAT_EVERY = 5.0
"""Seconds after which an unchanged list is published again."""

BELIEVED_FOR = 12.0
"""Seconds for which the list of another monitor counts: two repetitions and their delivery. The list of a dead monitor
expires so. If a monitor's clock is off by more than this, its lists are ignored."""

MOST_FLAGS = 5000
"""The most flags in a list, which is then 200 KB."""


def watched_services(specs: Iterable[TriggerSpec]) -> dict[FlagKey, set[str]]:
    """Return the services of each flag that any monitor watches."""
    found: dict[FlagKey, set[str]] = {}
    for spec in specs:
        found.setdefault((spec.environment, spec.flag), set()).add(spec.service)
    return found


class PeerMonitors:
    """The lists of ill flags of all monitors.

    `watched` has all flags of the configuration with their services. `by` names this process, `publish` publishes its
    list, and `place` returns its place among the monitors: its first partition.
    """

    def __init__(
        self,
        watched: Mapping[FlagKey, Collection[str]],
        tables: StateTables,
        publish: Callable[[Ill], object],
        *,
        by: str,
        place: Callable[[], int],
    ) -> None:
        self.watched = watched
        self._tables = tables
        self._publish = publish
        self._by = by
        self._place = place
        self._pairs = _pairs(watched)
        self._last: tuple[frozenset[FlagKey], float] = (frozenset(), 0.0)

    def publish_ill(self, ill: Iterable[FlagKey], own: Mapping[FlagKey, Collection[str]], now: float) -> None:
        """Publish the flags that are ill here if they changed or a repetition is due.

        `own` has the services of each flag that are judged here.
        """
        if _pairs(own) >= self._pairs:
            return
        found, (last, at) = frozenset(ill), self._last
        if found == last and (not found or now - at < REPEAT_EVERY):
            return
        self._last = found, now
        self._publish(Ill(by=self._by, place=self._place(), at=now, flags=sorted(found)[:MOST_FLAGS]))

    def ill(self, now: float) -> set[FlagKey]:
        """Return the flags that are ill by the newest lists of the other monitors."""
        return {
            flag
            for one in self._tables.ill.values()
            if one.by != self._by and abs(now - one.at) <= BELIEVED_FOR
            for flag in one.flags
        }


def _pairs(watched: Mapping[FlagKey, Collection[str]]) -> int:
    """Return the number of (flag, service) pairs."""
    return sum(map(len, watched.values()))
