"""What is wrong with topics that are there: flipback leaves them as they are, and says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from streams.kafka.topics import Topics, TopicSpec, administrator

_TOLD_WITHIN = 3.0


async def shortfalls(
    specs: Iterable[TopicSpec], topics: Topics, lookback: float, connection: dict[str, Any]
) -> list[str]:
    """What the topics that are there lack of what flipback needs of them, and what to do about each.

    `lookback` (seconds) is how much of the partials a monitor reads again when it starts. Nothing is said of a topic
    that is missing, nor of settings that may not be described.
    """
    wanted = {spec.name: spec for spec in specs}
    async with administrator(connection) as admin:
        names = sorted(set(wanted) & set(await admin.list_topics()))
        if not names:
            return []
        described = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(names)}
        settings = await _settings(admin, names)
    return list(lacking(wanted, topics, lookback, described, settings))


async def _settings(admin: Any, names: list[str]) -> dict[str, dict[str, str]]:
    """The settings of the topics; none where a broker does not tell them."""
    found: dict[str, dict[str, str]] = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_TOLD_WITHIN):
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
    """See `shortfalls`; `partitions` and `settings` are those of the topics that are there."""
    for name in partitions:
        spec, given = wanted[name], settings.get(name, {})
        policy = given.get("cleanup.policy", "")
        if spec.retention_ms is None and policy and "compact" not in policy:
            yield f"topic {name} has cleanup.policy={policy}: what it holds is lost after its retention; set compact"
        if name == topics.partials:
            # -1 keeps for ever.
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
