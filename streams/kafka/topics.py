"""flipback's topics: their names, partitions and settings, and how they are created."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from streams.errors import TopicError
from streams.kafka.connection_errors import reason

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as flipback creates it. If `retention_ms` is None, the topic is compacted and its records never expire.

    With a retention and `compacted`, it keeps the newest record of each key until that expires.
    """

    name: str
    partitions: int
    retention_ms: int | None
    purpose: str
    compacted: bool = False

    @property
    def config(self) -> dict[str, str]:
        if self.retention_ms is None:
            # A low dirty ratio and short segments, so that a reader at start-up finds few superseded records.
            return {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": str(_HOUR_MS)}
        if self.compacted:
            # A reader reads one segment of superseded records: 2 MB, which 20 processes write in ten minutes.
            often = {"min.cleanable.dirty.ratio": "0.1", "segment.ms": str(_HOUR_MS // 6)}
            return {"cleanup.policy": "compact,delete", "retention.ms": str(self.retention_ms), **often}
        return {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of flipback's topics under a prefix (`flipback` unless configured)."""

    prefix: str = "flipback"

    @property
    def partials(self) -> str:
        return f"{self.prefix}.partials"

    @property
    def health(self) -> str:
        return f"{self.prefix}.health"

    @property
    def events(self) -> str:
        return f"{self.prefix}.events"

    @property
    def commands(self) -> str:
        return f"{self.prefix}.commands"

    @property
    def rejected(self) -> str:
        return f"{self.prefix}.rejected"

    @property
    def incidents(self) -> str:
        return f"{self.prefix}.incidents"

    @property
    def flags(self) -> str:
        return f"{self.prefix}.flags"

    @property
    def healthy(self) -> str:
        return f"{self.prefix}.healthy"

    @property
    def checkpoints(self) -> str:
        return f"{self.prefix}.checkpoints"

    @property
    def heartbeats(self) -> str:
        return f"{self.prefix}.heartbeats"

    def specs(self, partials_partitions: int, lookback: float) -> list[TopicSpec]:
        """All topics. `lookback` (seconds) is how much of the partials a monitor reads again when it starts."""
        # Kafka keeps records at least this long: it deletes a segment only after its newest record has expired.
        partials_ms = max(_HOUR_MS, int(lookback * 1000) + _HOUR_MS // 2)
        return [
            TopicSpec(self.partials, partials_partitions, partials_ms, "per-second statistics between the stages"),
            TopicSpec(self.health, partials_partitions, _DAY_MS, "statistics and verdicts of each second"),
            TopicSpec(self.checkpoints, partials_partitions, None, "state of triggers, for a monitor that takes over"),
            TopicSpec(self.events, 1, 90 * _DAY_MS, "audit: verdict changes and every step of a flip, CloudEvents"),
            TopicSpec(self.commands, 1, 7 * _DAY_MS, "signed commands to the executor"),
            TopicSpec(self.rejected, 1, 7 * _DAY_MS, "telemetry that could not be counted, with the reason"),
            TopicSpec(self.incidents, 1, None, "the incidents: triggers that fired on a version of a flag"),
            TopicSpec(self.flags, 1, None, "state and version of each managed flag"),
            TopicSpec(self.healthy, 1, None, "each trigger's healthy rate, learnt over a day"),
            TopicSpec(self.heartbeats, 1, _DAY_MS, "which processes are alive, and what each of them can do", True),
        ]


TIMEOUT = 15.0
"""Seconds for a broker to answer an administrative request."""


@dataclass(frozen=True, slots=True)
class Created:
    """Which topics were created, which existed, and how many partitions each of them has."""

    created: tuple[str, ...]
    existing: tuple[str, ...]
    partitions: dict[str, int]


async def create(specs: Iterable[TopicSpec], *, replication: int, connection: dict[str, Any]) -> Created:
    """Create the topics that are missing; existing topics are not changed.

    `replication` -1 stands for three replicas, or as many as there are brokers. Raises TopicError if the broker rejects
    a topic or cannot be reached.
    """
    wanted = list(specs)
    async with admin_client(connection) as admin:
        existing = set(await admin.list_topics())
        missing = [spec for spec in wanted if spec.name not in existing]
        if missing:
            brokers = len((await admin.describe_cluster())["brokers"])
            # aiokafka 0.14 cannot request the broker's own default.
            copies = min(3, brokers) if replication == -1 else replication
            new = [NewTopic(s.name, s.partitions, copies, topic_configs=s.config) for s in missing]
            response = await admin.create_topics(new, timeout_ms=int(TIMEOUT * 1000))
            for name, code, *_ in response.topic_errors:
                # Another process that starts at the same time may have created it.
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise TopicError(f"topic {name!r} was not created: {for_code(code).__name__}; create it by hand")
        return Created(
            tuple(spec.name for spec in missing),
            tuple(spec.name for spec in wanted if spec.name in existing),
            await _partitions(admin, [spec.name for spec in wanted]),
        )


async def describe(names: Iterable[str], connection: dict[str, Any], *, optional: Iterable[str] = ()) -> dict[str, int]:
    """How many partitions each topic has. Raises TopicError if one is missing that is not `optional`."""
    required = list(names)
    async with admin_client(connection) as admin:
        existing = set(await admin.list_topics())
        missing = sorted(set(required) - existing)
        if missing:
            raise TopicError(f"no topic {', '.join(missing)}; create it with `flipback topics create`")
        found = [*required, *(name for name in optional if name in existing)]
        return await _partitions(admin, list(dict.fromkeys(found)))


async def topic_names(connection: dict[str, Any]) -> set[str]:
    """The names of all topics of the brokers that this client may see."""
    async with admin_client(connection) as admin:
        return set(await admin.list_topics())


async def existing_partitions(names: Iterable[str], connection: dict[str, Any]) -> dict[str, int]:
    """How many partitions each of the existing topics has; missing topics are left out."""
    wanted = list(names)
    async with admin_client(connection) as admin:
        existing = set(await admin.list_topics())
        return await _partitions(admin, [name for name in wanted if name in existing])


@asynccontextmanager
async def admin_client(
    connection: dict[str, Any], *, within: float | None = TIMEOUT
) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for administrative requests. Raises TopicError if one fails or all take longer than `within` seconds."""
    servers = ", ".join(connection["bootstrap_servers"])
    admin = AIOKafkaAdminClient(**connection)
    try:
        async with asyncio.timeout(within):
            await admin.start()
            yield admin
    except (KafkaError, TimeoutError, OSError) as error:
        raise TopicError(f"no answer about topics from {servers}: {await reason(error, connection)}") from error
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """How many partitions each topic has. Waits until all partitions have leaders, without which writing is slow."""
    if not names:
        # For Kafka an empty list stands for all topics.
        return {}
    while True:
        described = await admin.describe_topics(names)
        if all(
            not topic["error_code"] and topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"])
            for topic in described
        ):
            return {topic["topic"]: len(topic["partitions"]) for topic in described}
        await asyncio.sleep(0.05)
