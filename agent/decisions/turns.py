"""The order in which the flags of one service are turned back.

Flags of a service are turned back one at a time, and each gets time to show whether it was the cause. A flag whose
command fails must not delay the next one. Trying several flags must not exceed the limits of automation: that halts
flipback until a person resumes it.
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
"""Seconds added to the time in which flips count: the executor's clock may differ, and one flip too many is a halt."""


class AutomationLimit(NamedTuple):
    """At most `most` flags may be turned back within `within` seconds (automation in the configuration)."""

    most: int
    within: float


def before(spec: TriggerSpec, tables: StateTables, now: float, bake: float) -> tuple[str, str] | None:
    """Return why a flag waits for another flag of its service that was commanded, as kind and detail; None if it need
    not wait.

    A flag that was turned back gets `bake` seconds from when it was seen safe.
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
    """Is the flag of a commanded incident still at the judged version, and may the command still turn it back?"""
    status = tables.flags.get((incident.environment, incident.flag))
    if status is None:
        return now - incident.commanded_at < longest
    if status.safe or status.version != incident.flag_version:
        return False
    return failed(incident, tables.result_of(incident), now, longest) is None


def given_up(key: FlagKey, version: str, tables: StateTables, now: float, longest: float) -> str | None:
    """Return why a flag at this version is passed over: all its commands failed. Return None if that is not so.

    `longest` bounds the wait for a command, in seconds.
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
    """Return why one more flag of the service waits, as kind and detail: the flags tried before it use up the limit.
    Return None if they do not.

    `group` has the flags that would be turned back together. If flags of other services use up the limit, the flag does
    not wait: many ill services at once are what the halt is for. A flag that a person made safe before its command
    arrived does not count; the executor does not count it either.
    """
    tried: dict[FlagKey, float] = {}
    others: set[FlagKey] = set()
    for key, status in tables.flags.items():
        # Most flags have not changed for long; skip their incidents.
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
    # Due when as many of the oldest flips no longer count as there are too many.
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
