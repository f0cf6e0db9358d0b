"""Recorded times of a wall clock that may have been wrong.

A time ahead of this process's clock is replaced by the moment at which it was first seen here: the event it belongs to
then counts for a while, neither for ever nor not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.commands.expiry import CLOCK_SKEW_S


@dataclass(slots=True)
class Believed:
    """Times in Unix seconds, each with a name."""

    _seen: dict[str, float] = field(default_factory=dict)

    def at(self, name: str, noted: float, now: float) -> float:
        """Return `noted`, or when it was first seen here if it lies ahead of `now`."""
        if noted <= now + CLOCK_SKEW_S:
            return noted
        seen = self._seen.get(name)
        if seen is None or seen > now + CLOCK_SKEW_S:
            seen = self._seen[name] = now
        return seen
