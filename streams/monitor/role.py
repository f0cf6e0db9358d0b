"""The monitor role: the Faust app that reads partials and has each partition judged by its shard."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import replace

from streams.clock import Clock, Now
from streams.condition import ShardCondition
from streams.errors import ClockError
from streams.kafka.app import new_app
from streams.kafka.connection import Connection
from streams.kafka.outbox import Outbox
from streams.kafka.reading import Delivery, Reading
from streams.kafka.topics import Topics
from streams.memory import keep_freed_memory
from streams.monitor.announcements import Announcements
from streams.monitor.checkpoint_records import CheckpointRecords
from streams.monitor.freshness import ahead_of
from streams.monitor.handlers import Handlers
from streams.monitor.healthy_rates import HealthyRateRecord, Key, decode
from streams.monitor.recall import Recall
from streams.monitor.resume_point import NEW_DEPLOYMENT
from streams.monitor.second_publisher import SecondPublisher
from streams.monitor.settings import MonitorSettings
from streams.monitor.shard import Shard
from streams.partials.decode import decode_all
from streams.slices import Source

_FETCH = 4 << 20
"""Bytes of a partition's partials in one fetch, which a shard takes in at once: 300 records of 2,000 scopes."""
_BUFFERED_SLICES = 8

_MOST_WAITING, _LEAST_WAITING = 256 << 20, 16 << 20
"""Bytes of cells that may wait for a source that holds the others up: in all shards together, and at least in each."""

_AHEAD_FOR = 15.0
"""Seconds for which the judged time must be ahead of the clock before the process ends."""

_logger = logging.getLogger(__name__)


class MonitorRole:
    """Reads partials, evaluates triggers and publishes health.

    `ready` is set once the states of all flags and all incidents have been read. `shards` holds the shard of each
    partition of this process.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        settings: MonitorSettings,
        *,
        handlers: Handlers,
        outbox: Outbox,
        clock: Clock,
        ready: asyncio.Event,
    ) -> None:
        keep_freed_memory()
        self._topics = topics
        self._settings = settings
        self._handlers = handlers
        self._clock = clock
        self._ahead_since: float | None = None
        self._ready = ready
        checkpoints = CheckpointRecords(settings)
        self._recall = Recall(connection, topics, settings, checkpoints)
        self._publisher = SecondPublisher(
            topics, handlers, outbox, checkpoints, evaluate_every=settings.shard.evaluate_every
        )
        self._reading = Reading(
            batched=frozenset({topics.partials}),
            replayed=frozenset({topics.partials}),
            since=self._recall.since,
            on_start=self._assigned,
            on_revoke=self._revoked,
        )
        self.shards: dict[int, Shard] = {}
        self._flags: dict[tuple[str, str], tuple[float | None, float | None, bool]] = {}
        self._healthy_rates: dict[Key, HealthyRateRecord] = {}
        self.assigned = False
        self.partial_errors = 0
        self._announcements = Announcements()
        # One shard computes at a time, and the loop runs in between: 8 shards in a row blocked the loop for 70 ms, and
        # the acknowledgement of a command waited as long.
        self._turn = asyncio.Lock()
        self.app = new_app(f"{topics.prefix}-monitor", connection, self._reading, buffer=_BUFFERED_SLICES, fetch=_FETCH)
        topic = self.app.topic(topics.partials, value_serializer="raw", key_serializer="raw")
        self.app.agent(topic, name="monitor")(self._take)
        self.app.timer(interval=1.0)(self._tick)

    def owned(self) -> set[Source]:
        """The partitions that are judged."""
        return {Source(self._topics.partials, partition) for partition in self.shards}

    async def _assigned(self, offsets: Mapping[Source, int]) -> None:
        """Make a shard for each partition of this process, which resumes where the process before has left it."""
        # A command needs the flags' states and the incidents: both are read before the first partial.
        await self._ready.wait()
        most_bytes = max(_LEAST_WAITING, _MOST_WAITING // max(len(offsets), 1))
        settings = replace(self._settings.shard, most_bytes=most_bytes)
        points = self._recall.points
        self.shards = {
            source.partition: Shard(
                source.partition,
                self._settings.specs_of(source.partition),
                self._settings.telemetry,
                settings,
                replace(points.get(source.partition, NEW_DEPLOYMENT), from_start=offset == 0),
                drift_targets=self._settings.drift_targets_of(source.partition),
            )
            for source, offset in offsets.items()
        }
        for shard in self.shards.values():
            shard.restore_healthy_rates(self._healthy_rates.values())
            for (environment, flag), (changed_at, share, safe) in self._flags.items():
                shard.flag_changed(environment, flag, changed_at, share, safe=safe)
        self.assigned = True
        if offsets:
            resumed = sum(points[p].checkpoint is not None for p in points.keys() & self.shards.keys())
            fields = {"partitions": len(self.shards), "checkpoints": resumed}
            _logger.info("monitor.assigned", extra={"fields": fields})

    def take_healthy_rate(self, value: bytes | None) -> None:
        """Take in a record of a healthy rate. The records that exist at the start come before the first partial."""
        record = decode(value)
        if record is not None:
            self._healthy_rates[record.key] = record

    def flag_changed(
        self, environment: str, flag: str, changed_at: float | None, share: float | None, *, safe: bool
    ) -> None:
        """See `Shard.flag_changed`. Call it for every state that is read, also for those from before the start."""
        if self._flags.get((environment, flag)) == (changed_at, share, safe):
            return
        self._flags[environment, flag] = changed_at, share, safe
        for shard in self.shards.values():
            shard.flag_changed(environment, flag, changed_at, share, safe=safe)

    def watched(self) -> dict[tuple[str, str], list[str]]:
        """The services in which this process judges each (environment, flag)."""
        found: dict[tuple[str, str], list[str]] = {}
        for shard in self.shards.values():
            for flag, services in shard.observer.services.items():
                found.setdefault(flag, []).extend(services)
        return found

    def conditions(self) -> dict[int, ShardCondition]:
        """Whether each partition of this process may be acted upon now."""
        now = self._clock.now()
        return {partition: shard.condition(now) for partition, shard in self.shards.items()}

    def judged_until(self) -> float:
        """The end of the last second that every live shard has judged; infinite if no shard is live."""
        now = self._clock.now()
        ends = [shard.time for shard in self.shards.values() if shard.condition(now).status == "live"]
        return min((end for end in ends if end is not None), default=math.inf)

    def _revoked(self) -> None:
        for partition in self.shards:
            self._announcements.forget(partition)
        self.shards = {}

    async def _take(self, stream: object) -> None:
        """Judge the shards side by side, and the slices of one shard in order.

        One after the other, the last shard would wait until the commands of all others are acknowledged.
        """
        under_way: dict[int, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            async for event in stream.events():  # type: ignore[attr-defined]
                delivery: Delivery = event.value
                partition = delivery.slice.source.partition
                if partition in under_way:
                    await under_way[partition]
                under_way[partition] = group.create_task(self._judge(delivery))

    async def _judge(self, delivery: Delivery) -> None:
        """Judge the seconds that a slice completes.

        An error ends the app and the process: Faust would restart the agent only, and its shards would go on without a
        part of a slice.
        """
        try:
            await self._judge_all(delivery)
        except Exception as error:
            await self.app.crash(error)
            raise

    async def _judge_all(self, delivery: Delivery) -> None:
        source = delivery.slice.source
        shard = self.shards.get(source.partition)
        # A slice fetched before a rebalance belongs to a shard that no longer exists.
        if shard is None or delivery.epoch != self._reading.positions[source].epoch:
            return
        async with self._turn:
            batch, errors = decode_all([value or b"" for value in delivery.slice.values])
        for error in errors:
            self.partial_errors += 1
            _logger.error("partial.unreadable", extra={"fields": {"error": str(error)}})
        seconds = shard.take_all(batch, self._clock.now)
        while True:
            async with self._turn:
                second = next(seconds, None)
            if second is None:
                return
            await self._publisher.publish(shard, second)

    async def _tick(self) -> None:
        """Once a second, publish and announce what no record shows: that partials are missing or late."""
        now = self._clock.now()
        await self._end_if_ahead(now)
        for partition, shard in self.shards.items():
            condition = shard.condition(now)
            if condition.status != "live":
                self._publisher.send_health(partition, shard.unknown_health(now))
            change = self._announcements.observe(partition, condition, now.monotonic)
            if change is not None:
                self._handlers.inability(partition, condition, change == "begun")

    async def _end_if_ahead(self, now: Now) -> None:
        """End the process if it has judged seconds that lie in the future, for `_AHEAD_FOR` seconds.

        Its clock was wrong when it judged them; the next process reads the log again by the right clock. It does not
        end at once, because the clock may be wrong now.
        """
        ahead = max((ahead_of(shard.time, now) for shard in self.shards.values()), default=0.0)
        if ahead == 0.0:
            self._ahead_since = None
            return
        self._ahead_since = self._ahead_since or now.monotonic
        if now.monotonic - self._ahead_since >= _AHEAD_FOR:
            await self.app.crash(ClockError(f"seconds were judged up to {ahead:.0f} s ahead of this machine's clock"))
