"""How long it has been unknown whether a write landed, and when to say so (again).

An entry in doubt is recorded once, again every `REMIND_S` while it lasts, and given up after `GIVE_UP_S`: a person is
told then, and nothing more is tried by itself. What ends a doubt is recorded as the outcome that it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from agent.events import cloudevents as events
from agent.ledger.entry import Entry

REMIND_S = 300.0
GIVE_UP_S = 1800.0


class Say(Enum):
    NOTHING = "nothing"
    DOUBT = "doubt"
    GIVEN_UP = "given up"


@dataclass(slots=True)
class _Doubt:
    """Monotonic seconds of when it began, and of when it was last recorded."""

    begun: float
    said: float


@dataclass(slots=True)
class Doubts:
    """The doubts of the commands under way. `monotonic` is in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    _open: dict[str, _Doubt] = field(default_factory=dict)

    def still(self, entry: Entry, now: float) -> Say:
        """An attempt has ended in doubt: what is to be recorded of it? `now` is in Unix seconds.

        The age is that by the wall clock or by this process, whichever is more: a clock that was set back keeps no
        entry open, and one that was set forward gives it up early, which a fresh command takes up again.
        """
        said = [event.time for event in entry.events if event.type == events.FLAG_AMBIGUOUS]
        mono = self.monotonic()
        known = self._open.get(entry.command.id)
        if known is None:
            known = self._open[entry.command.id] = _Doubt(mono, mono)
            if not said:
                return Say.DOUBT
        if max([mono - known.begun, *(now - at for at in said[:1])]) >= GIVE_UP_S:
            del self._open[entry.command.id]
            return Say.GIVEN_UP
        if max([mono - known.said, *(now - at for at in said[-1:])]) >= REMIND_S:
            known.said = mono
            return Say.DOUBT
        return Say.NOTHING

    def over(self, entry: Entry) -> None:
        """It is known what became of the command."""
        self._open.pop(entry.command.id, None)
