"""Find a flag that somebody or something turns on again after each flip, so that a person can be told."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from agent.state.flags import generation
from agent.state.incidents import Incident

TIMES = 3
"""Flips of one flag within `WITHIN` that count as a fight: a person turns a flag on again once, perhaps twice."""

WITHIN = 1800.0
"""Seconds in which flips are counted. Flips are at least 60 s apart, so an automat causes three in 2 minutes."""


def fight(incident: Incident, incidents: Iterable[Incident]) -> str | None:
    """Return the announcement if `incident`, just commanded, follows several flips that were each undone; else None.

    `incidents` has the incidents of its flag.
    """
    commanded: dict[int, float] = {}
    for one in incidents:
        if one.outcome == "commanded" and incident.commanded_at - one.commanded_at <= WITHIN:
            number = generation(one.flag_version)
            begun = one.commanded_at if one.begun_at is None else one.begun_at
            commanded[number] = min(begun, commanded.get(number, begun))
    # A flip makes one generation and its undoing the next. An incident only one generation later followed no flip.
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
