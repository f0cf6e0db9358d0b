"""Checks existing topics for settings that flipback needs. It reports problems and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from streams.kafka.topics import Topics, TopicSpec, admin_client

_DESCRIBED_WITHIN = 3.0


async def shortfalls(
    specs: Iterable[TopicSpec], topics: Topics, lookback: float, connection: dict[str, Any]
) -> list[str]:
    """A message for each existing topic whose settings do not suffice, with what to do about it.

    `lookback` (seconds) is how much of the partials a monitor reads again when it starts. Missing topics are not
    reported, nor settings that this client may not read.
    """
    wanted = {spec.name: spec for spec in specs}
    async with admin_client(connection) as admin:
        names = sorted(set(wanted) & set(await admin.list_topics()))
        if not names:
            return []
        described = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(names)}
        settings = await _settings(admin, names)
    return list(lacking(wanted, topics, lookback, described, settings))


async def _settings(admin: Any, names: list[str]) -> dict[str, dict[str, str]]:
    """The settings of each topic; empty if the broker does not return them in time."""
    found: dict[str, dict[str, str]] = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_DESCRIBED_WITHIN):
            for response in await admin.describe_configs(resources):
                for _, _, _, name, entries in response.resources:
                    found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def lacking(
    wanted: Mapping[str, TopicSpec],
    topics: Topics,
    lookback: float,
    partitions: Mapping[str, int],
    settings: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """See `shortfalls`; `partitions` and `settings` are those of the existing topics."""
    for name in partitions:
        spec, given = wanted[name], settings.get(name, {})
        policy = given.get("cleanup.policy", "")
        if spec.retention_ms is None and policy and "compact" not in policy:
            yield f"topic {name} has cleanup.policy={policy}: what it holds is lost after its retention; set compact"
        if name == topics.partials:
            # -1 stands for no limit.
            kept = int(given.get("retention.ms") or -1)
            enough = max(spec.retention_ms or 0, int(1000 * lookback))
            if 0 <= kept < 1000 * lookback:
                yield (
                    f"topic {name} keeps records for {kept / 1000:.0f} s, triggers look back {lookback:.0f} s: after a "
                    f"start their windows would begin empty; set retention.ms to {enough}"
                )
        least = partitions.get(topics.partials, 0)
        if name in (topics.health, topics.checkpoints) and partitions[name] < least:
            yield (
                f"topic {name} has {partitions[name]} partitions, {topics.partials} has {least}: those beyond cannot "
                f"be written; add partitions up to {least}"
            )
