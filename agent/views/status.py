"""Reads the newest state of flags, incidents and verdicts from the topics."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent.config.kafka import connection
from agent.config.model import Config
from agent.errors import MalformedEvent
from agent.events.cloudevents import Event, from_kafka
from agent.heartbeats.heartbeat import Member, members_of
from agent.state.by_hand import ByHand, by_hand
from agent.state.flags import FlagStatus
from agent.state.incidents import AfterFlip, CommandResult, Incident
from agent.state.state_tables import StateTables
from streams.condition import shortened
from streams.kafka.reader import read_all_to_end
from streams.kafka.topics import Topics, describe
from streams.monitor.health import Health, TriggerHealth, WithoutFlag
from streams.monitor.health import decoder as health_decoder
from streams.unreadable import UNREADABLE

RECENT = 10.0
"""Seconds of health records that are read; an evaluated partition publishes one per second."""

STALE_AFTER = 5.0
"""Seconds after which the newest verdict of a partition is too old to be live."""

ORDERS_WITHIN = 7 * 86_400.0
"""Seconds of the audit log that are searched for orders of people."""


@dataclass(slots=True)
class Status:
    """The newest state of flags, incidents and verdicts.

    `shards` has the newest health record of each partials partition. `results` are by incident's id. `orders` of people
    are newest first. `members` is None if the heartbeats topic does not exist. `topics` has the partitions of each
    topic.
    """

    flags: list[FlagStatus]
    incidents: list[Incident]
    after_flips: list[AfterFlip] = field(default_factory=list)
    results: dict[str, CommandResult] = field(default_factory=dict)
    orders: list[ByHand] = field(default_factory=list)
    shards: dict[int, Health] = field(default_factory=dict)
    partitions: int = 0
    members: list[Member] | None = None
    topics: Mapping[str, int] = field(default_factory=dict)
    at: float = 0.0

    def after(self, incident: Incident) -> list[AfterFlip]:
        """The verdicts after the incident's flip, those of the incident's own service first."""
        found = [one for one in self.after_flips if one.incident == incident.id]
        return sorted(found, key=lambda one: (one.service != incident.service, one.service))

    @property
    def triggers(self) -> list[TriggerHealth]:
        return sorted(
            (trigger for shard in self.shards.values() for trigger in shard.triggers),
            key=lambda trigger: (trigger.flag, trigger.trigger),
        )

    @property
    def without_flag(self) -> list[WithoutFlag]:
        """The flags that a notable share of the requests does not carry; those with failing requests come first."""
        found = (one for shard in self.shards.values() for one in shard.without_flag)
        return sorted(found, key=lambda one: (not one.failing, -one.share, one.service, one.flag))

    @property
    def unjudged(self) -> list[int]:
        """The partitions for which no monitor has lately published verdicts."""
        return [p for p in range(self.partitions) if p not in self.shards]

    @property
    def problems(self) -> list[str]:
        """Why verdicts are not live, one line per reason; empty if all are live."""
        found = dict.fromkeys(self.unjudged, f"no monitor has published verdicts for {RECENT:.0f} s")
        for partition, shard in sorted(self.shards.items()):
            if shard.status != "live":
                found[partition] = shard.detail or shard.status
            elif self.at - shard.at > STALE_AFTER:
                found[partition] = f"the last verdict is {self.at - shard.at:.0f} s old"
        return by_reason(found)

    @property
    def evidence_until(self) -> int | None:
        """Event time, in Unix seconds, up to which all partitions are judged; None if a partition is not judged."""
        if self.unjudged or not self.shards:
            return None
        return min(shard.time for shard in self.shards.values())


def by_reason(found: Mapping[int, str]) -> list[str]:
    """Join partitions of `flipback.partials` whose reasons differ only in numbers into one line."""
    alike: dict[str, list[int]] = {}
    for partition, reason in sorted(found.items()):
        alike.setdefault(re.sub(r"\d+", "", reason), []).append(partition)
    return [
        f"{shortened([f'partials/{p}' for p in partitions])}: {found[partitions[0]]}" for partitions in alike.values()
    ]


async def read_status(config: Config) -> Status:
    """Read the newest state from the topics. Raises TopicError if a topic does not exist."""
    topics, client = Topics(config.kafka.prefix), connection(config).client
    tables = StateTables()
    now = time.time()
    since = {
        topics.incidents: None,
        topics.flags: None,
        topics.health: now - RECENT,
        topics.events: now - ORDERS_WITHIN,
    }
    optional = [topics.heartbeats, topics.partials, *(telemetry.topic for telemetry in config.telemetry)]
    partitions = await describe(since, client, optional=optional)
    if topics.heartbeats in partitions:
        since[topics.heartbeats] = None
    found = await read_all_to_end(since, client)
    incidents, flags, health, audit = (found[topic] for topic in list(since)[:4])
    for record in incidents:
        tables.incident(record.value)
    for record in flags:
        tables.flag(record.value)
    return Status(
        flags=sorted(tables.flags.values(), key=lambda status: (status.environment, status.flag)),
        incidents=sorted(tables.incidents.values(), key=lambda incident: incident.begun, reverse=True),
        after_flips=list(tables.after_flips.values()),
        results={
            name: result for name, one in tables.incidents.items() if (result := tables.result_of(one)) is not None
        },
        orders=by_hand(_events(audit)),
        shards={frame.partition: frame for frame in frames(record.value for record in health)},
        partitions=partitions[topics.health],
        members=members_of(found[topics.heartbeats]) if topics.heartbeats in found else None,
        topics=partitions,
        at=time.time(),
    )


def frames(values: Iterable[bytes | None]) -> Iterator[Health]:
    """Yield the readable records of the health topic. A partition without one counts as not judged."""
    for value in values:
        with suppress(*UNREADABLE):
            yield health_decoder.decode(value or b"")


def _events(records: Iterable[Any]) -> Iterator[Event]:
    for record in records:
        with suppress(MalformedEvent):
            yield from_kafka(record.value, record.headers)
