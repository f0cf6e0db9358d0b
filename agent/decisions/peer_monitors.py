"""What is ill in services that other monitors judge: an outage spread over three of them is one all the same.

Each monitor publishes the flags that are ill in what it judges when they change, and every few seconds while there are
any; all follow the topic anyway. A monitor that judges everything publishes nothing.
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
"""Seconds for which the list of another monitor counts: two repetitions and their way. One that died is not ill for
ever; a clock that is off by more than this makes its lists count for nothing."""

MOST_FLAGS = 5000
"""Flags in a list: 200 KB. Half of everything is reached long before."""


def watched_services(specs: Iterable[TriggerSpec]) -> dict[FlagKey, set[str]]:
    """The services of each flag that any monitor watches."""
    found: dict[FlagKey, set[str]] = {}
    for spec in specs:
        found.setdefault((spec.environment, spec.flag), set()).add(spec.service)
    return found


class PeerMonitors:
    """The lists of all monitors. `watched` are all flags of the configuration with their services, `by` names this
    process, `publish` takes its list, and `place` tells where among the monitors it is: its first partition.
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
        """Publish the flags that are ill here, if that is news. `own` are the services judged here, of each flag."""
        if _pairs(own) >= self._pairs:
            return
        found, (last, at) = frozenset(ill), self._last
        if found == last and (not found or now - at < REPEAT_EVERY):
            return
        self._last = found, now
        self._publish(Ill(by=self._by, place=self._place(), at=now, flags=sorted(found)[:MOST_FLAGS]))

    def ill(self, now: float) -> set[FlagKey]:
        """The flags that are ill by the newest lists of the other monitors."""
        return {
            flag
            for one in self._tables.ill.values()
            if one.by != self._by and abs(now - one.at) <= BELIEVED_FOR
            for flag in one.flags
        }


def _pairs(watched: Mapping[FlagKey, Collection[str]]) -> int:
    """How many flags are watched, each in so many services."""
    return sum(map(len, watched.values()))
