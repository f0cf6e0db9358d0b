"""The least time between flips of a flag, made by any process that uses the ledger.

After a restart only the wall clock gives the age of a flip. A recorded time ahead of the clock is ignored: the clock
was wrong then, and refusing flips until that time would leave a bad flag on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.backends.contract import FlagRef
from agent.commands.command import Reason, Rejection
from agent.commands.expiry import CLOCK_SKEW_S
from agent.ledger.ledger import Ledger


class Left(NamedTuple):
    """Why a flip must wait, and until which Unix time."""

    rejection: Rejection
    over_at: float


@dataclass(slots=True)
class Cooldown:
    """Flips of one flag follow each other at least `seconds` apart. `monotonic` is in seconds."""

    ledger: Ledger
    seconds: float
    monotonic: Callable[[], float] = time.monotonic
    _own: dict[FlagRef, float] = field(default_factory=dict)

    def flipped(self, ref: FlagRef) -> None:
        """Note that this process has just written the flag."""
        self._own[ref] = self.monotonic()

    def refusal(self, ref: FlagRef, now: float) -> Left | None:
        """Return why the flag may not be flipped at `now` (Unix seconds), if so. Blocks on the disk."""
        since = self._since(ref, now)
        if since is None or since >= self.seconds:
            return None
        detail = f"the flag was flipped {since:.1f} s ago, the least time between flips is {self.seconds:g} s"
        return Left(Rejection(Reason.COOLDOWN, detail), now - since + self.seconds)

    def _since(self, ref: FlagRef, now: float) -> float | None:
        """Seconds since the last flip, None if none is known."""
        noted = self.ledger.flips(ref.environment, ref.flag)
        ages = [max(0.0, now - at) for at in noted if at <= now + CLOCK_SKEW_S]
        if len(ages) < len(noted) and ref in self._own:
            # The clock was set back since this process wrote the flag.
            ages.append(self.monotonic() - self._own[ref])
        return min(ages, default=None)
