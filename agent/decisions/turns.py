"""Whose turn it is among the flags of one service: who was turned back, who is under way, who cannot be.

Flags of a service are turned back one at a time, and each gets time to show whether it was the one. A flag whose
command leads nowhere must not keep the guilty one on, and trying them in turn must not use up the limits: the halt that
follows needs a person.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

from agent.decisions.follow_up import failed, may_have_flipped, turned_back_at
from agent.state.incidents import Incident
from agent.state.state_tables import StateTables
from detectors.conditions.spec import TriggerSpec

FlagKey = tuple[str, str]
"""Environment and flag."""


LIMIT_MARGIN = 10.0
"""Seconds added to the time in which flips count: the executor counts by its own clock, and one flip too many halts."""


class AutomationLimit(NamedTuple):
    """At most `most` flags may be turned back within `within` seconds (automation in the configuration)."""

    most: int
    within: float


def before(spec: TriggerSpec, tables: StateTables, now: float, bake: float) -> tuple[str, str] | None:
    """Why a flag waits for another of its service that was commanded: kind and words; None where it need not.

    What was turned back gets `bake` seconds, counted from when its flag was seen safe.
    """
    for incident in _of_service(spec, tables):
        status = tables.flags.get((incident.environment, incident.flag))
        at = turned_back_at(incident, status)
        if at is not None:
            if now - at < bake:
                return (
                    "bake",
                    f"flag {incident.flag!r} of the same service was turned back {now - at:.0f} s ago; this one is "
                    f"next if the breach is still there after {bake:.0f} s",
                )
        elif under_way(incident, tables, now, bake):
            return "under way", f"flag {incident.flag!r} of the same service is being turned back; this one is next"
    return None


def under_way(incident: Incident, tables: StateTables, now: float, longest: float) -> bool:
    """Is the flag of a commanded incident still as it was judged, and may the command yet turn it back?"""
    status = tables.flags.get((incident.environment, incident.flag))
    if status is None:
        return now - incident.commanded_at < longest
    if status.safe or status.version != incident.flag_version:
        return False
    return failed(incident, tables.result_of(incident), now, longest) is None


def given_up(key: FlagKey, version: str, tables: StateTables, now: float, longest: float) -> str | None:
    """Why a flag at this version is passed over: all that was commanded of it led nowhere; None where that is not so.

    `longest` is the longest time for which it is waited for, in seconds.
    """
    why = None
    for incident in tables.of_flag(*key):
        if incident.flag_version == version and incident.outcome == "commanded":
            why = failed(incident, tables.result_of(incident), now, longest)
            if why is None:
                return None
    return why


def beyond_limit(
    spec: TriggerSpec, group: Collection[FlagKey], tables: StateTables, now: float, limit: AutomationLimit
) -> tuple[str, str] | None:
    """Why one more flag of the service waits: those tried before it use up the limit; None where they do not.

    `group` are the flags that would be turned back with it. Flags of other services that use up the limit are no reason
    to wait: many services ill at once are what the halt is for. A flag that a person made safe before its command came
    does not count, as it does not for the executor.
    """
    tried: dict[FlagKey, float] = {}
    others: set[FlagKey] = set()
    for key, status in tables.flags.items():
        # Most flags have been as they are for long; their incidents need not be looked at.
        if not status.safe or key in group or now - (status.changed_at or now) >= limit.within + LIMIT_MARGIN:
            continue
        for incident in tables.of_flag(*key):
            at = turned_back_at(incident, status) if incident.outcome == "commanded" else None
            if not may_have_flipped(incident, tables.result_of(incident)):
                continue
            if at is None or now - at >= limit.within + LIMIT_MARGIN:
                continue
            if (incident.environment, incident.service) == (spec.environment, spec.service):
                tried[key] = at
            else:
                others.add(key)
    room = limit.most - len(others | set(group))
    if room < 0 or len(tried) <= room:
        return None
    # As many of the oldest must be past as there are too many.
    due = sorted(tried.values())[len(tried) - room - 1] + limit.within + LIMIT_MARGIN
    names = ", ".join(repr(name) for _, name in sorted(tried))
    clock = time.strftime("%H:%M:%SZ", time.gmtime(due))
    return (
        "limit",
        f"{names} of the same service went before, and {limit.most} flags may be turned back within "
        f"{limit.within:.0f} s: this one is next at {clock} if the breach is still there; turn it off by hand before "
        "that, or raise automation.max_flips and max_share",
    )


def _of_service(spec: TriggerSpec, tables: StateTables) -> Iterator[Incident]:
    for incident in tables.of_service(spec.environment, spec.service):
        if incident.flag != spec.flag and incident.outcome == "commanded":
            yield incident
