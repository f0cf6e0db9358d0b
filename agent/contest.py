"""A flag that is changed again each time after flipback has made it safe: a fight, which only a person can end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent import events
from agent.backends.contract import FlagRef
from agent.events import Event
from agent.flag_state import FlagStatus

LEAST = 3
"""Flips, each undone, that are a fight."""

WITHIN_S = 600.0


class Contests:
    """Watches for fights. `flips` tells when flipback wrote a flag, in Unix seconds."""

    def __init__(self, flips: Callable[[FlagRef], Awaitable[list[float]]]) -> None:
        self._flips = flips
        self._versions: dict[FlagRef, str] = {}
        self._open: dict[FlagRef, float] = {}

    async def seen(self, status: FlagStatus) -> Event | None:
        """Take in a look at a flag; returns the event that a fight has begun, or is over. Raises LedgerError."""
        ref, now = FlagRef(status.flag, status.environment), status.at
        if self._versions.get(ref) == status.version:
            if now - self._open.get(ref, now) >= WITHIN_S:
                del self._open[ref]
                return _event(status, "ended", f"nobody has put the flag back for {WITHIN_S / 60:.0f} min")
            return None
        if not status.safe:
            undone = [at for at in await self._flips(ref) if 0 <= now - at < WITHIN_S]
            begun = ref not in self._open and len(undone) >= LEAST
            if begun or ref in self._open:
                self._open[ref] = now
            self._versions[ref] = status.version
            return _event(status, "begun", _reason(len(undone), status)) if begun else None
        self._versions[ref] = status.version
        return None


def _reason(times: int, status: FlagStatus) -> str:
    return (
        f"somebody or something puts the flag back: {times} times in {WITHIN_S / 60:.0f} min it was changed after "
        f"flipback had made it safe; the last version is {status.version}. Find what writes it (a deployment, a sync, "
        "a colleague), and stop one of the two"
    )


def _event(status: FlagStatus, state: str, reason: str) -> Event:
    return Event(
        type=events.INABILITY,
        subject=events.subject_of(status.environment, status.flag),
        data={"state": state, "status": "contested", "flag_version": status.version, "reason": reason},
        id=events.event_id("contested", status.environment, status.flag, status.version, state),
        time=status.at,
    )
