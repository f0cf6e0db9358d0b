"""How long it has been unknown whether a write landed, and when that is recorded.

An ambiguous entry is recorded once, again every `REMIND_S` while it stays ambiguous, and given up after `GIVE_UP_S`: a
person is asked then, and flipback tries nothing more. When the outcome becomes known, that outcome is recorded.
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


class AmbiguityStep(Enum):
    """What is to be recorded: nothing, FLAG_AMBIGUOUS, or FLAG_UNRESOLVED."""

    NOTHING = "nothing"
    AMBIGUOUS = "ambiguous"
    UNRESOLVED = "unresolved"


@dataclass(slots=True)
class _Ambiguity:
    """When it began, and when it was last recorded, in monotonic seconds."""

    begun: float
    recorded: float


@dataclass(slots=True)
class AmbiguousWrites:
    """The commands of which it is unknown whether their write landed. `monotonic` is in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    _open: dict[str, _Ambiguity] = field(default_factory=dict)

    def step_due(self, entry: Entry, now: float) -> AmbiguityStep:
        """Return what to record after an ambiguous attempt. `now` is in Unix seconds.

        The age is that of the wall clock or of this process, whichever is greater. A clock that was set back keeps no
        entry open; one that was set forward gives an entry up early, and a fresh command takes it up again.
        """
        recorded = [event.time for event in entry.events if event.type == events.FLAG_AMBIGUOUS]
        mono = self.monotonic()
        ambiguity = self._open.get(entry.command.id)
        if ambiguity is None:
            ambiguity = self._open[entry.command.id] = _Ambiguity(mono, mono)
            if not recorded:
                return AmbiguityStep.AMBIGUOUS
        if max([mono - ambiguity.begun, *(now - at for at in recorded[:1])]) >= GIVE_UP_S:
            del self._open[entry.command.id]
            return AmbiguityStep.UNRESOLVED
        if max([mono - ambiguity.recorded, *(now - at for at in recorded[-1:])]) >= REMIND_S:
            ambiguity.recorded = mono
            return AmbiguityStep.AMBIGUOUS
        return AmbiguityStep.NOTHING

    def resolved(self, entry: Entry) -> None:
        """Forget the entry: its outcome is known."""
        self._open.pop(entry.command.id, None)
