"""Explain an incident or a flag from the audit log.

`flipback.events` has everything: changes of verdicts, the command with its evidence, every step of the flip, its
effect, changes by people, and the reasons why nothing was done. This module finds the events that belong together;
`agent.views.explanation_lines` puts them in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from agent.commands.command import Evidence
from agent.config.kafka import connection
from agent.config.model import Config
from agent.errors import FlipbackError, MalformedEvent
from agent.events import cloudevents as events
from agent.events.cloudevents import Event, from_kafka
from agent.state.flag_changes import without_own_changes
from agent.state.flag_now import FlagNow, flag_now
from agent.state.flags import FlagStatus
from agent.state.state_tables import StateTables
from agent.views.in_order import in_order, made_at
from streams.kafka.reader import read_all_to_end
from streams.kafka.topics import Topics, describe

BEFORE_S = 3600.0
"""Seconds before an incident's first step in which its trigger may have become pending."""

LAG_S = 60.0
"""Seconds by which the clock, the time of steps, may be ahead of event time, the time of verdicts."""

_MINOR = frozenset({events.trigger_type("ok"), events.trigger_type("unknown")})
"""Events that are counted and not listed outside of an incident."""


class NothingKnown(FlipbackError):
    """The audit log has nothing about the flag or incident asked for."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """An incident, or the newest trouble of a flag.

    `now` is the flag's state, None if no executor has published it. `events` are in order, causes before effects.
    `evidence` is the command's, None if nothing was commanded. `since` has the events after `events`, without the
    changes of verdicts between ok and unknown, of which there are `folded`.
    """

    subject: str
    incident: str | None
    evidence: Evidence | None
    events: list[Event]
    now: FlagNow | None = None
    since: list[Event] = []
    folded: int = 0

    @property
    def incidents(self) -> dict[str, bool]:
        """The incidents of the flag itself, oldest first. True if its flip began to write, so that there is a snapshot
        to restore.
        """
        found: dict[str, bool] = {}
        for event in [*self.events, *self.since]:
            if event.subject == self.subject and "incident" in event.data:
                name = str(event.data["incident"])
                found[name] = found.get(name, False) or event.type == events.FLAG_WRITTEN
        return found


class AuditLog(NamedTuple):
    """The audit log, oldest first, and the state of each flag that an executor has published."""

    events: list[Event]
    flags: list[FlagStatus]


async def read_audit(config: Config) -> AuditLog:
    """Read the whole audit log, without records that are no event. Raises TopicError if a topic does not exist."""
    topics, client = Topics(config.kafka.prefix), connection(config).client
    # Without this check the read would wait forever for a missing topic.
    await describe([topics.events, topics.flags], client)
    read = await read_all_to_end({topics.events: None, topics.flags: None}, client)
    records, flags = read[topics.events], read[topics.flags]
    tables = StateTables()
    for record in flags:
        tables.flag(record.value)
    found: dict[str, Event] = {}
    for record in records:
        try:
            event = from_kafka(record.value, record.headers)
        except MalformedEvent:
            continue
        if event.recorded is None:
            event = msgspec.structs.replace(event, recorded=record.timestamp / 1000)
        # An event may be published twice, by a re-delivery or by two processes: keep the first.
        found.setdefault(event.id, event)
    return AuditLog(in_order(found.values()), list(tables.flags.values()))


def explain(
    log: Sequence[Event], what: str, flags: Iterable[FlagStatus] = (), local: Sequence[Event] = ()
) -> Explanation:
    """Explain an incident (by its id) or a flag ("flag" or "environment/flag"): its newest flip or newest trouble.

    `flags` has the states that executors have published. `local` has the steps in the ledger of this machine, which the
    audit log may lack. Raises NothingKnown.
    """
    published = {event.id for event in log}
    added = [event for event in local if event.id not in published]
    log = list(without_own_changes([*log, *added]))
    only_here = {event.id for event in added}
    states = {events.subject_of(status.environment, status.flag): status for status in flags}
    own = [event for event in log if event.data.get("incident") == what]
    if own:
        found = _incident(log, own, what)
        now = flag_now(log, found.subject, states.get(found.subject), only_here)
        return msgspec.structs.replace(found, now=now)
    known = {event.subject for event in log}.union(states)
    subjects = {subject for subject in known if what in (subject, subject.partition("/")[2])}
    if not subjects:
        raise NothingKnown(
            f"the audit log knows no incident and no flag {what!r}; `flipback status` lists flags and incidents"
        )
    if len(subjects) > 1:
        raise NothingKnown(f"{what!r} is in several environments: name one of {', '.join(sorted(subjects))}")
    subject = subjects.pop()
    now = flag_now(log, subject, states.get(subject), only_here)
    return msgspec.structs.replace(_flag(log, subject, now), now=now)


def _incident(log: Sequence[Event], own: Sequence[Event], incident: str) -> Explanation:
    first, last = min(event.time for event in own), max(event.time for event in own)
    # The subject is the flag whose trigger fired; the other flags of its group have the same incident.
    causes = {event.subject for event in own if event.data.get("command", {}) and _cause(event) is None}
    subject = causes.pop() if causes else own[0].subject
    trigger = next((event.data["trigger"] for event in own if "trigger" in event.data), None)
    verdicts = [
        event
        for event in log
        if event.subject == subject and event.data.get("trigger") == trigger and "incident" not in event.data
    ]
    around = list(_around(verdicts, first, last))
    begin = min([first, *(event.time for event in around)])
    found = [*own, *around, *_changes(log, subject, begin, last)]
    return Explanation(subject=subject, incident=incident, evidence=_evidence(own), events=in_order(found))


def _flag(log: Sequence[Event], subject: str, now: FlagNow | None) -> Explanation:
    """Explain the flip that set the flag as it is `now`, else the newest flip, with the events after it. If there was
    no flip, explain the newest trouble.
    """
    of_flag = [event for event in log if event.subject == subject]
    commands = [event for event in of_flag if event.type == events.COMMAND_RECEIVED]
    if not commands:
        return _trouble(log, of_flag, subject)
    flip = _chosen_incident(commands, of_flag, now)
    found = _incident(log, [event for event in log if event.data.get("incident") == flip], flip)
    end, seen = max(map(made_at, found.events)), {event.id for event in found.events}
    shared = [event for event in log if event.subject == events.AUTOMATION]
    later = [event for event in [*of_flag, *shared] if made_at(event) >= end and event.id not in seen]
    listed = [event for event in later if event.type not in _MINOR]
    return msgspec.structs.replace(found, subject=subject, since=in_order(listed), folded=len(later) - len(listed))


def _chosen_incident(commands: Sequence[Event], of_flag: Sequence[Event], now: FlagNow | None) -> str:
    """Return the incident that set the flag as it is, else the newest one that wrote it, else the newest.

    A later command that found the flag safe already changed nothing.
    """
    names = [str(event.data["incident"]) for event in sorted(commands, key=lambda event: event.time)]
    if now is not None and now.incident in names:
        return now.incident
    wrote = {str(event.data.get("incident")) for event in of_flag if event.type == events.FLAG_WRITTEN}
    return next((name for name in reversed(names) if name in wrote), names[-1])


def _trouble(log: Sequence[Event], of_flag: Sequence[Event], subject: str) -> Explanation:
    """Explain the newest time in trouble, with the reasons why nothing was done."""
    if not of_flag:
        return Explanation(subject=subject, incident=None, evidence=None, events=[])
    last = max(event.time for event in of_flag)
    start = _episode(of_flag, last)
    # Events about all flags, such as an outage, explain why nothing was done to this flag.
    shared = [event for event in log if event.subject == events.AUTOMATION]
    found = [event for event in [*of_flag, *shared] if start <= event.time <= last + LAG_S]
    incidents = {event.data["incident"] for event in found if "incident" in event.data}
    incident = incidents.pop() if len(incidents) == 1 else None
    found += _changes(log, subject, start, last)
    return Explanation(subject=subject, incident=incident, evidence=_evidence(found), events=in_order(found))


def _changes(log: Sequence[Event], subject: str, begin: float, end: float) -> Iterator[Event]:
    """Yield the flag's changes between two times, and the last one before, which says who turned it on and when."""
    kinds = (events.FLAG_CHANGED, events.FLAG_RESTORED)
    changes = in_order(event for event in log if event.subject == subject and event.type in kinds)
    yield from [event for event in changes if event.time < begin][-1:]
    yield from (event for event in changes if begin <= event.time <= end)


def _around(verdicts: Sequence[Event], first: float, last: float) -> Iterator[Event]:
    """Yield the trigger's verdicts from when it left ok before the incident to the incident's end."""
    begin = _episode([event for event in verdicts if event.time <= first], first)
    yield from (event for event in verdicts if begin <= event.time <= last + 1)


def _episode(found: Sequence[Event], end: float) -> float:
    """Return when the last time in trouble began: after the last verdict ok that another event followed."""
    start = end
    for event in sorted(found, key=lambda event: -event.time):
        if event.time < end - BEFORE_S:
            break
        if event.type == events.trigger_type("ok") and start < end:
            return start
        start = event.time
    return start


def _evidence(found: Iterable[Event]) -> Evidence | None:
    """Return the evidence of the first command. If a person repeated a command by hand, return the last one's."""
    first: Evidence | None = None
    for event in in_order(found):
        command = event.data.get("command")
        if event.type != events.COMMAND_RECEIVED or not isinstance(command, dict):
            continue
        evidence = msgspec.convert(command["evidence"], Evidence)
        if first is None or (first.by and evidence.by):
            first = evidence
    return first


def _cause(event: Event) -> object:
    command = event.data.get("command")
    return command.get("cause") if isinstance(command, dict) else None
