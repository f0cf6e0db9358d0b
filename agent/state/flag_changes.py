"""Changes of a flag in the audit log: published from the states that are read, filtered when the log is read.

An executor cannot know at once whose change it reads: its own write, or a restore by another process, is a new version
too. It publishes each change, and the reader of the log leaves out those that another event explains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.state.flags import FlagStatus, generation

_SEEN_WITHIN = 120.0
"""Seconds after a write of flipback within which an executor may read it as a change. The slowest flag system is read
every 10 s, and a standby may have been paused."""


def change_of(before: FlagStatus | None, status: FlagStatus) -> Event | None:
    """Return the event of a flag that is in a later version than `before`; None if it is not later.

    The id follows from the version, so that two executors publish one event.
    """
    if before is None or generation(status.version) <= generation(before.version):
        return None
    data = {
        "flag": status.flag,
        "environment": status.environment,
        "was": before.variant,
        "was_percent": before.percent,
        "variant": status.variant,
        "percent": status.percent,
        "safe": status.safe,
        "flag_version": status.version,
    }
    return Event(
        type=events.FLAG_CHANGED,
        subject=events.subject_of(status.environment, status.flag),
        data=data,
        id=events.event_id(events.FLAG_CHANGED, status.environment, status.flag, status.version),
        time=status.at if status.changed_at is None else status.changed_at,
    )


def without_own_changes(log: Iterable[Event]) -> Iterator[Event]:
    """Leave out changes that are flipback's own writes and restores; keep all other events, in their order."""
    log = list(log)
    own: dict[tuple[str, str], list[float]] = {}
    for event in log:
        for version in _left_behind(event):
            own.setdefault((event.subject, version), []).append(event.time)
    for event in log:
        if event.type == events.FLAG_CHANGED:
            version = str(event.data.get("flag_version")).partition("-")[2]
            # A person's change may have the version of an earlier write: off, on, and off again.
            if any(at - 1.0 <= event.time <= at + _SEEN_WITHIN for at in own.get((event.subject, version), [])):
                continue
        yield event


def _left_behind(event: Event) -> Iterator[str]:
    """Return the backend's versions of the flag after the write that an event records."""
    if event.type not in (events.FLAG_WRITTEN, events.FLAG_VERIFIED, events.FLAG_RESTORED):
        return
    version, whole = event.data.get("version"), event.data.get("flag_version")
    if isinstance(version, str):
        yield version
    if isinstance(whole, str):
        yield whole.partition("-")[2]
