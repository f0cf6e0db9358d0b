"""The health of each role: for probes, and as obstacles for ARMED or NOT ARMED (agent.armed.verdict)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from agent.armed.verdict import VERDICTS
from agent.armed.view import FlagKey
from agent.executor.service import Flips
from agent.heartbeats.heartbeat import Obstacle, Role, TelemetryCount
from agent.telemetry.unseen import unseen_by
from agent.views.status import by_reason
from agent.web.health import RoleHealth
from streams.condition import shortened
from streams.executor.role import ExecutorRole
from streams.ingest.role import IngestRole
from streams.ingest.telemetry_counts import NOTHING
from streams.kafka.liveness import silence
from streams.monitor.role import MonitorRole

Roles = Mapping[Role, IngestRole | MonitorRole | ExecutorRole]

_NOT_LIVE = "is its telemetry read in time? see `flipback status`"


def health_of(role: IngestRole | MonitorRole | ExecutorRole, problems: Sequence[str], *, covered: bool) -> RoleHealth:
    """The state of a role; a role with `problems` is not ready.

    `covered`: some process reads each partition of the role. A standby is ready only then.
    """
    # Without a partition, Faust never reports the start of reading: a standby cannot become readier than this.
    standby = role.app.unassigned
    ready, detail = role.assigned, "reading" if role.assigned else "waiting for partitions"
    if standby:
        ready = covered
        detail = "standing by: other processes have all partitions" if covered else "waiting for partitions"
    if isinstance(role, MonitorRole) and ready and not standby:
        detail = shortened([one.why for one in not_live(role)], "; ") or f"live, {len(role.shards)} partitions"
    found = [*unheard(role), *problems]
    if found:
        ready, detail = False, "; ".join(found)
    return RoleHealth(live=True, ready=ready, detail=detail)


def unheard(role: IngestRole | MonitorRole | ExecutorRole) -> list[str]:
    """A sentence if the brokers do not answer this role."""
    silent = silence(role.app, time.monotonic())
    return [] if silent is None else [silent]


def not_live(monitor: MonitorRole) -> Iterator[Obstacle]:
    """The partitions of a monitor whose verdicts are not live."""
    found = {p: condition.detail for p, condition in monitor.conditions().items() if condition.status != "live"}
    for why in by_reason(found):
        yield Obstacle(what=VERDICTS, why=why, do=_NOT_LIVE)


def obstacles_of(
    roles: Roles,
    flips: Flips | None,
    unwritten: Sequence[str],
    unread: Mapping[Role, Sequence[str]],
    in_use: Collection[FlagKey],
) -> list[Obstacle]:
    """What keeps this process from its part in a flip, except a halt (`Flips.halt`), which is reported by itself.

    `unwritten` names the topics that take no records, `unread` what keeps each role from reading, `in_use` the flags
    that are not safe.
    """
    found = [Obstacle(what="events", why=why) for why in unwritten]
    for name, role in roles.items():
        if not (role.assigned or role.app.unassigned):
            found.append(Obstacle(what=name, why="waiting for partitions", do="wait for some seconds"))
        found += [Obstacle(what=name, why=why, do="is a broker up?") for why in unheard(role)]
        found += [Obstacle(what=name, why=why) for why in unread.get(name, ())]
        if isinstance(role, MonitorRole):
            found += not_live(role)
            found += unseen_by(list(role.shards.values()), in_use)
    if flips is not None:
        found += flips.skew.obstacles()
        found += [Obstacle(what="executor", why=why) for why in flips.unread()]
        if flips.problems is None:
            found.append(Obstacle(what="executor", why="the flags have not been looked at yet", do="wait some seconds"))
        else:
            found += [Obstacle(what="executor", why=why) for why in flips.problems if why != flips.halt]
    return found


def telemetry_of(ingest: IngestRole | None, topics: Sequence[str]) -> list[TelemetryCount]:
    """The samples that an ingest role has received from each topic in the last minute."""
    if ingest is None:
        return []
    found = ingest.ingest.counts.recent()
    return [TelemetryCount(topic=topic, **found.get(topic, NOTHING)._asdict()) for topic in topics]
