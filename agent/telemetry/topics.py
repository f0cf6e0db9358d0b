"""The topics that a configuration needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from agent.after_flip import watch as aftermath
from agent.backends.shown import nearest
from agent.config.model import Config
from agent.logs.setup import log_event
from detectors.conditions.spec import longest_lookback
from streams.errors import TopicError
from streams.kafka.topic_checks import shortfalls
from streams.kafka.topics import Topics, TopicSpec, create, describe, topic_names

TELEMETRY_PARTITIONS = 8
"""Partitions of a telemetry topic that flipback creates."""

_DAY_MS = 86_400_000

_logger = logging.getLogger(__name__)


def own(config: Config) -> list[TopicSpec]:
    """flipback's own topics."""
    return Topics(config.kafka.prefix).specs(config.kafka.partials_partitions, longest_lookback(config.trigger_specs()))


def wanted(config: Config) -> list[TopicSpec]:
    """flipback's own topics, then the telemetry topics."""
    return own(config) + [TopicSpec(t.topic, TELEMETRY_PARTITIONS, _DAY_MS, "samples") for t in config.telemetry]


async def ready(config: Config, connection: dict[str, Any]) -> dict[str, int]:
    """Create flipback's own topics that are missing, if the configuration allows it; returns the partitions of each.

    Raises TopicError if a topic is missing. A missing telemetry topic is not created: its name is usually misspelt, and
    a new topic of that name would stay empty for ever.
    """
    await there(config, connection)
    if config.kafka.create_topics:
        made = await create(own(config), replication=config.kafka.replication, connection=connection)
        if made.created:
            log_event(_logger, "topics.created", topics=list(made.created))
    for reason in await lacking(config, connection):
        log_event(_logger, "topics.lacking", level=logging.WARNING, reason=reason)
    return await describe([spec.name for spec in wanted(config)], connection)


async def lacking(config: Config, connection: dict[str, Any]) -> list[str]:
    """What flipback's own topics lack, such as a retention as long as triggers look back."""
    lookback = max(longest_lookback(config.trigger_specs()), aftermath.lookback(config.flags, config.after_flip))
    return await shortfalls(own(config), Topics(config.kafka.prefix), lookback, connection)


async def there(config: Config, connection: dict[str, Any]) -> None:
    """Raises TopicError, with similar names, if a telemetry topic does not exist."""
    names = await topic_names(connection)
    for telemetry in config.telemetry:
        if telemetry.topic not in names:
            others = foreign(config, names)
            are = f"there are {nearest(telemetry.topic, others)}" if others else "there is none of another name"
            raise TopicError(
                f"no telemetry topic {telemetry.topic!r}; {are}. If the name is right and nothing has written to it "
                "yet, create it with `flipback topics create`"
            )


def foreign(config: Config, names: Iterable[str]) -> set[str]:
    """The topics among `names` that are neither flipback's own nor Kafka's."""
    return {name for name in names if not name.startswith((f"{config.kafka.prefix}.", "__"))}
