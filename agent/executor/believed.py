"""Times that a process has noted by a wall clock which may have been wrong.

A time that lies ahead of the clock is not believed. It counts as the moment at which it was first seen here, so that
what it stands for neither counts for ever nor not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.state.allowlist import CLOCK_SKEW_S


@dataclass(slots=True)
class Believed:
    """Times in Unix seconds, each with a name."""

    _seen: dict[str, float] = field(default_factory=dict)

    def at(self, name: str, noted: float, now: float) -> float:
        """When it was, as far as that can be believed at `now`."""
        if noted <= now + CLOCK_SKEW_S:
            return noted
        seen = self._seen.get(name)
        if seen is None or seen > now + CLOCK_SKEW_S:
            seen = self._seen[name] = now
        return seen
