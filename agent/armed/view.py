"""The inputs of ARMED or NOT ARMED: what the configuration requires, and what is known of the deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.config.load import managed_hash, rules_hash
from agent.config.model import Config
from agent.heartbeats.heartbeat import Member, Obstacle
from detectors.missing.missing_samples import asks_outcome
from streams.kafka.topics import Topics

FlagKey = tuple[str, str]
"""An environment and a flag."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a configuration requires.

    `flags` are those that a trigger may roll back, with the flags that are made safe together with them. `names` are
    all managed flags, as heartbeats name them. `shadow` is why no command is made, if none is. `lifetime` is how many
    seconds a command is valid. `outcomes`: some trigger uses the outcomes of requests.
    """

    rules: str
    managed: str
    names: frozenset[str]
    shadow: str | None
    flags: frozenset[FlagKey]
    telemetry: tuple[str, ...]
    partials: str
    lifetime: float = 60.0
    outcomes: bool = True


@dataclass(frozen=True, slots=True)
class View:
    """What is known of a deployment; None is unknown.

    `partitions` is how many each topic has, `ages` how many seconds ago an executor read each flag. If a process of the
    deployment makes the view, `own` is its id and `started_at` its start in Unix seconds. `local` are obstacles that
    the viewer knows itself; they are newer than those in its heartbeat.
    """

    members: Sequence[Member] | None
    partitions: Mapping[str, int] | None
    ages: Mapping[FlagKey, float] | None
    local: Sequence[Obstacle] = ()
    own: str | None = None
    started_at: float | None = None


def names(config: Config) -> list[str]:
    """The managed flags, each "environment/flag"."""
    return sorted({f"{flag.environment}/{flag.flag}" for flag in config.flags})


def wanted(config: Config) -> Wanted:
    """The requirements of `config`. Raises ConfigError if the baseline file cannot be read."""
    specs = [spec for spec in config.trigger_specs() if spec.action == "rollback"]
    live = {(spec.environment, spec.flag) for spec in specs if not spec.shadow}
    together = {
        (flag.environment, name)
        for flag in config.flags
        if (flag.environment, flag.flag) in live
        for name in flag.together
    }
    shadow = None
    if not specs:
        shadow = "no trigger has the action rollback"
    elif not live:
        shadow = "mode: shadow" if config.mode == "shadow" else "every trigger that would roll back is in shadow mode"
    return Wanted(
        rules=rules_hash(config),
        managed=managed_hash(config),
        names=frozenset(names(config)),
        shadow=shadow,
        flags=frozenset(live | together),
        telemetry=tuple(topic.topic for topic in config.telemetry),
        partials=Topics(config.kafka.prefix).partials,
        lifetime=config.command.expires,
        outcomes=any(asks_outcome(spec.condition.metric) for spec in specs if not spec.shadow),
    )
