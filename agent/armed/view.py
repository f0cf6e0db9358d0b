"""What ARMED or NOT ARMED is decided by: what the configuration asks for, and what somebody knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.config.load import managed_hash, rules_hash
from agent.config.model import Config
from agent.heartbeats.heartbeat import Member, Obstacle
from detectors.missing.share import asks_outcome
from streams.kafka.topics import Topics

FlagKey = tuple[str, str]
"""An environment and a flag."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a configuration asks for. `flags` are those that a trigger may turn back, and those that go with them;
    `names` are all, as heartbeats have them; `lifetime` is how many seconds a command is valid; `outcomes` says that
    some trigger asks how requests ended.
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
    """What somebody knows, None where that is nothing. `partitions` is how many each topic has, `ages` how many seconds
    ago an executor has read a flag. `own` is the id of the process that looks, if it is one, and `started_at` when it
    started, in Unix seconds; of itself it knows `local` better than its heartbeat does.
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
    """Raises ConfigError where the baseline file cannot be read."""
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
