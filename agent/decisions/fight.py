"""A flag that is turned back, turned on again, and turned back again: somebody else writes it, and must be told."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from agent.state.flags import generation
from agent.state.incidents import Incident

TIMES = 3
"""Flips of one flag within `WITHIN` that are a fight: a person turns a flag on again once, perhaps twice."""

WITHIN = 1800.0
"""Seconds in which they are counted. At the least time between flips, 60 s, an automat needs 2 minutes for three."""


def fight(incident: Incident, incidents: Iterable[Incident]) -> str | None:
    """What is to be said when `incident`, which was just commanded, is one of several flips that were each undone.

    `incidents` are those of its flag.
    """
    commanded: dict[int, float] = {}
    for one in incidents:
        if one.outcome == "commanded" and incident.commanded_at - one.commanded_at <= WITHIN:
            number = generation(one.flag_version)
            begun = one.commanded_at if one.begun_at is None else one.begun_at
            commanded[number] = min(begun, commanded.get(number, begun))
    # A flip makes a generation and its undoing the next: what follows at once was never turned back.
    numbers = sorted(commanded)
    flips = 1 + sum(later - earlier >= 2 for earlier, later in pairwise(numbers))
    if flips < TIMES:
        return None
    minutes = (incident.commanded_at - min(commanded.values())) / 60
    return (
        f"this is flip {flips} of the flag within {minutes:.0f} min: somebody or something turns it on again each "
        f"time; find who writes it (`flipback explain {incident.flag}` lists the changes) and stop that, or halt "
        "flipback"
    )
