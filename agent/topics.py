"""The topics that a configuration asks for."""

from __future__ import annotations

from agent.config import Config
from detectors.spec import longest_lookback
from streams.topics import Topics, TopicSpec

TELEMETRY_PARTITIONS = 8
"""Partitions of a telemetry topic that nobody has created yet."""

_DAY_MS = 86_400_000


def wanted(config: Config) -> list[TopicSpec]:
    """flipback's own topics, then the telemetry topics."""
    own = Topics(config.kafka.prefix).specs(config.kafka.partials_partitions, longest_lookback(config.trigger_specs()))
    return own + [TopicSpec(t.topic, TELEMETRY_PARTITIONS, _DAY_MS, "samples") for t in config.telemetry]
