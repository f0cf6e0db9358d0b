"""What the parts of a process share: the configuration, and what follows from it once, at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from agent.config.kafka import connection as connect
from agent.config.model import Config
from agent.heartbeats.heartbeat import Role
from detectors.conditions.spec import TriggerSpec
from streams.clock import Clock
from streams.kafka.connection import Connection
from streams.kafka.topics import Topics
from streams.monitor.drift_watch import DriftTarget


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """The configuration and the roles of a process; triggers and drift targets are resolved once, for all parts."""

    config: Config
    roles: tuple[Role, ...]
    specs: Sequence[TriggerSpec]
    drift_targets: Sequence[DriftTarget]
    topics: Topics
    connection: Connection
    clock: Clock

    @classmethod
    def of(cls, config: Config, roles: Sequence[Role]) -> Self:
        """The context of `config`. Raises ConfigError if its baseline file cannot be read."""
        return cls(
            config=config,
            roles=tuple(roles),
            specs=config.trigger_specs(),
            drift_targets=config.drift_targets(),
            topics=Topics(config.kafka.prefix),
            connection=connect(config),
            clock=Clock(),
        )
