"""The processes of a deployment watch each other; one of them announces for all who is missing or does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent.heartbeats.heartbeat import AWAY_AFTER, Member, Members, Obstacle, Role, alive

_ROLES: dict[str, Role] = {"executor": "executor", "monitor": "monitor", "ingest": "ingest"}
"""A missing role may be a restart, which passes. Other obstacles do not pass by themselves."""

_SETTLED = 3.0
"""Seconds for the heartbeats of a process that ends or begins."""


class News(NamedTuple):
    """An obstacle that begins or is over, with the reason."""

    what: str
    begun: bool
    reason: str


class Watchdog:
    """Decides what to announce, and when. `own` is the id of this process.

    The living process with the first id announces the beginning and the end. If it dies, the next one announces again
    what still holds: twice is better than never.
    """

    def __init__(self, own: str, members: Members) -> None:
        self._own = own
        self._members = members
        self._since: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._announced: set[str] = set()

    def look(self, obstacles: Sequence[Obstacle] | None, now: float) -> list[News]:
        """The news since the last call. `obstacles` come from `agent.armed.group.of_group`; `now` is monotonic seconds.

        While the obstacles are unknown (None), nothing begins and nothing is over.
        """
        if obstacles is None:
            return []
        reasons: dict[str, list[str]] = {}
        for obstacle in obstacles:
            reasons.setdefault(obstacle.what, []).append(str(obstacle))
        news = []
        for what in [what for what in self._since if what not in reasons]:
            del self._since[what]
            reason = self._reasons.pop(what)
            if what in self._announced:
                self._announced.remove(what)
                news.append(News(what, False, f"over: {reason}"))
        for what, found in reasons.items():
            self._since.setdefault(what, now)
            self._reasons[what] = "; ".join(found[:3])
            if what not in self._announced and self._announces() and self._due(what, now):
                self._announced.add(what)
                news.append(News(what, True, self._reasons[what]))
        return news

    def _announces(self) -> bool:
        return first_of(self._members.all(), self._own) == self._own

    def _due(self, what: str, now: float) -> bool:
        lasted, role = now - self._since[what], _ROLES.get(what)
        if role is None:
            return lasted >= _SETTLED
        return lasted >= AWAY_AFTER or self._members.unheard(role) >= AWAY_AFTER


def first_of(members: Sequence[Member], own: str) -> str:
    """The id that announces: the first of the living monitors and executors; `own` if that is not seen alive."""
    able = {member.beat.id for role in ("monitor", "executor") for member in alive(members, role)}
    return min(able) if own in able else own
