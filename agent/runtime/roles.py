"""The roles of a process: ingest, monitor and executor, each made from the configuration."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.after_flip.watch import lookback as after_flip_lookback
from agent.decisions.blame import JudgedFlags
from agent.executor.service import Flips
from agent.heartbeats.heartbeat import Role
from agent.runtime.context import ProcessContext
from agent.runtime.publisher import Publisher
from agent.runtime.role_health import Roles
from detectors.conditions.spec import longest_lookback, longest_window
from detectors.windows.store import DISPLAY
from streams.executor.role import ExecutorRole
from streams.ingest.role import IngestRole, IngestSettings
from streams.kafka.app import send_until_acknowledged
from streams.kafka.driver import App
from streams.kafka.outbox import Record
from streams.monitor.handlers import Handlers
from streams.monitor.role import MonitorRole
from streams.monitor.settings import MonitorSettings, ShardSettings
from streams.monitor.watch_list import watch_list
from streams.slices import Source


class ProcessRoles:
    """The roles that this process has; the others are None. `flips` is what the executor role works with."""

    def __init__(self) -> None:
        self.ingest: IngestRole | None = None
        self.monitor: MonitorRole | None = None
        self.executor: ExecutorRole | None = None
        self.flips: Flips | None = None

    def present(self) -> Roles:
        """The roles of this process by name, the executor first."""
        roles: dict[Role, ExecutorRole | MonitorRole | IngestRole | None]
        roles = {"executor": self.executor, "monitor": self.monitor, "ingest": self.ingest}
        return {name: role for name, role in roles.items() if role is not None}

    def apps(self) -> dict[Role, App]:
        """The Faust app of each role of this process."""
        return {name: role.app for name, role in self.present().items()}

    def owned(self, role: Role) -> Callable[[], Iterable[Source]] | None:
        """A function that returns the partitions a role works on; None for the executor."""
        made = self.ingest if role == "ingest" else self.monitor if role == "monitor" else None
        return None if made is None else made.owned

    def judged(self) -> JudgedFlags:
        """The flags that this process judges, and until when; none without a monitor."""
        if self.monitor is None:
            return JudgedFlags({}, -math.inf)
        return JudgedFlags(self.monitor.watched(), self.monitor.judged_until())

    def first_shard(self) -> int:
        """The lowest partition that the monitor judges; 0 without one."""
        return min(self.monitor.shards, default=0) if self.monitor is not None else 0

    async def write(self, record: Record) -> None:
        """Write a record; returns when a broker has acknowledged it."""
        # The executor's producer if this process has one: the monitor's is then free for commands.
        app = next(iter(self.apps().values()))
        topic, value, key, partition, headers = record
        await app.producer.send_and_wait(topic, key, value, partition, None, list(headers))

    async def send_command(self, topic: str, key: bytes, value: bytes, on_retry: Callable[[Exception], None]) -> None:
        """Write a command through the monitor's producer, again and again until a broker has acknowledged it."""
        await send_until_acknowledged(self.apps()["monitor"], topic, value, key=key, on_retry=on_retry)


def ingest_role(context: ProcessContext, partitions: Mapping[str, int], publisher: Publisher) -> IngestRole:
    """The ingest role; `partitions` is how many each topic has, and is kept up to date by the caller."""
    config = context.config
    return IngestRole(
        context.connection,
        context.topics,
        IngestSettings(
            formats={t.topic: t.format for t in config.telemetry},
            sources={t.topic: t.source for t in config.telemetry},
            watch=watch_list(context.specs, context.drift_targets),
            max_scopes=config.max_scopes,
            max_lateness=config.max_lateness,
            lookback=longest_lookback(context.specs),
        ),
        partitions=partitions,
        clock=context.clock,
        publish=publisher.outbox.put,
    )


def monitor_role(
    context: ProcessContext,
    partitions: Mapping[str, int],
    publisher: Publisher,
    handlers: Handlers,
    tables_read: asyncio.Event,
) -> MonitorRole:
    """The monitor role. It reads partials once `tables_read` is set: a command needs the flags and the incidents."""
    config = context.config
    after_flip = after_flip_lookback(config.flags, config.after_flip)
    return MonitorRole(
        context.connection,
        context.topics,
        MonitorSettings(
            specs=context.specs,
            drift_targets=context.drift_targets,
            telemetry=[t.topic for t in config.telemetry],
            partials_partitions=partitions[context.topics.partials],
            lookback=max(longest_lookback(context.specs), after_flip),
            window_lookback=max(longest_window(context.specs), DISPLAY, after_flip),
            shard=ShardSettings(
                max_scopes=config.max_scopes,
                evaluate_every=int(config.evaluate_every),
                catching_up_after=config.catching_up_after,
                max_lateness=config.max_lateness,
            ),
        ),
        handlers=handlers,
        outbox=publisher.outbox,
        clock=context.clock,
        ready=tables_read,
    )


def executor_role(context: ProcessContext, flips: Flips, execute: Callable[[bytes], Awaitable[None]]) -> ExecutorRole:
    """The executor role; `execute` carries out a command that an accepted key has signed."""
    return ExecutorRole(
        context.connection,
        context.topics,
        lookback=context.config.command.expires,
        signed=flips.trusts,
        execute=execute,
        refuse=flips.refuse,
    )
