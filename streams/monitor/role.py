"""The monitor role: the Faust app around stage 2."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from detectors.conditions.spec import TriggerSpec
from detectors.triggers.evaluation import Transition
from streams.clock import Clock, Now
from streams.condition import ShardCondition
from streams.errors import CheckpointError, ClockError
from streams.kafka.app import new_app
from streams.kafka.connection import Connection
from streams.kafka.outbox import Outbox, Record
from streams.kafka.reader import NOT_READ, last_records
from streams.kafka.reading import Delivery, Reading
from streams.kafka.topics import Topics
from streams.memory import keep_freed_memory
from streams.monitor import checkpoint
from streams.monitor.announcements import Announcements
from streams.monitor.checkpoint import Checkpoint
from streams.monitor.drift import Drift
from streams.monitor.drift_watch import DriftTarget
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.freshness import ahead_of
from streams.monitor.health import Health, encoder
from streams.monitor.healthy_rates import EVERY, HealthyRateRecord, Key, decode, encode
from streams.monitor.merge import AHEAD
from streams.monitor.published import announced_before, newest_judged
from streams.monitor.resume_point import ResumePoint
from streams.monitor.settings import MonitorSettings
from streams.monitor.shard import Shard
from streams.monitor.standing import Standing
from streams.partials.decode import decode_all
from streams.partials.partitions import partition_of
from streams.slices import Source

REPLAY_MARGIN = 10.0
"""Seconds read again beyond the longest window and hold, because watermarks of the log's first records may lag."""

_CHECKPOINT_BEHIND = 6 * checkpoint.EVERY

_WAY = 0.1
"""Seconds for which other work waits after a firing second. In one process the command and its flip take as long; the
other work would double that."""

_FETCH = 4 << 20
"""Bytes of a partition's partials in one fetch, which are taken in at once: 300 records of 2,000 scopes."""
_BUFFERED_SLICES = 8

_MOST_WAITING, _LEAST_WAITING = 256 << 20, 16 << 20
"""Bytes of cells that wait in all shards for sources that hold them up, and in each at least."""

_AHEAD_FOR = 15.0
_RECALL_WITHIN = 10.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the monitor calls. It awaits `firing` and `judged` before the next second: they wait for a broker to
    acknowledge a command, for nothing else. The others return at once; their futures are done when that is published.
    """

    firing: Callable[[EvaluatedSecond], Awaitable[None]]
    transition: Callable[[TriggerSpec, Transition, float | None], asyncio.Future[None]]
    inability: Callable[[int, ShardCondition, bool], object]
    drift: Callable[[DriftTarget, Drift], object]
    judged: Callable[[EvaluatedSecond], Awaitable[None]]
    standing: Callable[[Standing], asyncio.Future[None]]


class MonitorRole:
    """Reads partials, evaluates triggers and publishes health."""

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
        self._connection = connection
        self._topics = topics
        self._settings = settings
        self._evaluate_every = settings.shard.evaluate_every
        self._handlers = handlers
        self._outbox = outbox
        self._clock = clock
        self._ahead_since: float | None = None
        self._ready = ready
        self._reading = Reading(
            batched=frozenset({topics.partials}),
            replayed=frozenset({topics.partials}),
            since=self._since,
            on_start=self._assigned,
            on_revoke=self._revoked,
        )
        self._lookback = settings.lookback + REPLAY_MARGIN
        self._window_lookback = settings.window_lookback + REPLAY_MARGIN
        self._published: dict[int, int | None] = {}
        self._told: dict[int, dict[tuple[str, str, str], tuple[int, bool]]] = {}
        self._checkpoints: dict[int, Checkpoint] = {}
        self._identities: dict[int, str] = {}
        self._too_large: set[int] = set()
        self.shards: dict[int, Shard] = {}
        self._flags: dict[tuple[str, str], tuple[float | None, float | None, bool]] = {}
        self._learnt: dict[Key, HealthyRateRecord] = {}
        self.assigned = False
        self.partial_errors = 0
        self._announcements = Announcements()
        # One shard computes at a time, and the loop runs in between: 8 shards in a row blocked it for 70 ms, and an
        # acknowledgement of a command waited as long.
        self._turn = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._way_until = 0.0
        self.app = new_app(f"{topics.prefix}-monitor", connection, self._reading, buffer=_BUFFERED_SLICES, fetch=_FETCH)
        topic = self.app.topic(topics.partials, value_serializer="raw", key_serializer="raw")
        self.app.agent(topic, name="monitor")(self._take)
        self.app.timer(interval=1.0)(self._tick)

    def owned(self) -> set[Source]:
        """The partitions that are judged."""
        return {Source(self._topics.partials, partition) for partition in self.shards}

    async def _assigned(self, offsets: Mapping[Source, int]) -> None:
        """Make a shard for each partition of this process; the log has what the process before knew of it."""
        # A command needs the flags' states and the incidents so far: both are read before the first partial.
        await self._ready.wait()
        most_bytes = max(_LEAST_WAITING, _MOST_WAITING // max(len(offsets), 1))
        settings = replace(self._settings.shard, most_bytes=most_bytes)
        self.shards = {
            source.partition: Shard(
                source.partition,
                self._specs_of(source.partition),
                self._settings.telemetry,
                settings,
                ResumePoint(
                    published=self._published.get(source.partition),
                    announced=self._told.get(source.partition, {}),
                    checkpoint=self._checkpoints.get(source.partition),
                    from_start=offset == 0,
                ),
                drift_targets=[t for t in self._settings.drift_targets if self._partition_of(t) == source.partition],
            )
            for source, offset in offsets.items()
        }
        for shard in self.shards.values():
            shard.recall(self._learnt.values())
            for (environment, flag), (changed_at, share, safe) in self._flags.items():
                shard.flag_changed(environment, flag, changed_at, share, safe=safe)
        self.assigned = True
        if offsets:
            told = {"partitions": len(self.shards), "checkpoints": len(self._checkpoints.keys() & self.shards.keys())}
            _logger.info("monitor.assigned", extra={"fields": told})

    def remember(self, value: bytes | None) -> None:
        """Take in a record of what was learnt. Records from before the start come before the first partial."""
        record = decode(value)
        if record is not None:
            self._learnt[record.key] = record

    def flag_changed(
        self, environment: str, flag: str, changed_at: float | None, share: float | None, *, safe: bool
    ) -> None:
        """See `Shard.flag_changed`; to be called for every state that is read, also for those before the start."""
        if self._flags.get((environment, flag)) == (changed_at, share, safe):
            return
        self._flags[environment, flag] = changed_at, share, safe
        for shard in self.shards.values():
            shard.flag_changed(environment, flag, changed_at, share, safe=safe)

    def watched(self) -> dict[tuple[str, str], list[str]]:
        """The services of each (environment, flag) that this process judges."""
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
        """The end of the last second that every live shard has been judged at; infinite where none is live."""
        now = self._clock.now()
        ends = [shard.time for shard in self.shards.values() if shard.condition(now).status == "live"]
        return min((end for end in ends if end is not None), default=math.inf)

    def _revoked(self) -> None:
        for partition in self.shards:
            self._announcements.forget(partition)
        self.shards = {}

    def _specs_of(self, partition: int) -> list[TriggerSpec]:
        return [spec for spec in self._settings.specs if self._partition_of(spec) == partition]

    def _identity(self, partition: int) -> str:
        if partition not in self._identities:
            specs = self._specs_of(partition)
            self._identities[partition] = checkpoint.identity(
                specs, topics=self._settings.telemetry, evaluate_every=self._evaluate_every
            )
        return self._identities[partition]

    def _partition_of(self, of: TriggerSpec | DriftTarget) -> int:
        return partition_of(of.environment, of.service, self._settings.partials_partitions)

    async def _since(self, sources: list[Source]) -> dict[Source, float | None]:
        """From when the partials of each partition are needed: from the begin of the windows at its checkpoint; without
        one that fits, from what triggers look back before the newest health record.

        Not from now: after an outage, the seconds before it are needed to judge the next ones. Runs in Faust's consumer
        thread; `_published` and `_checkpoints` are read after it has ended.
        """
        wanted = [
            Source(topic, source.partition)
            for source in sources
            for topic in (self._topics.health, self._topics.checkpoints)
        ]
        try:
            async with asyncio.timeout(_RECALL_WITHIN):
                records = await last_records(wanted, self._connection.client)
        except NOT_READ as error:
            # Without these records events are published twice; without a monitor nothing is judged.
            _logger.warning("monitor.recall-failed", extra={"fields": {"error": repr(error)}})
            records = {}
        self._published, self._checkpoints, self._told = {}, {}, {}
        return {source: self._since_of(source.partition, records, time.time()) for source in sources}

    def _since_of(self, partition: int, records: Mapping[Source, bytes | None], now: float) -> float | None:
        health = records.get(Source(self._topics.health, partition))
        published, wrong = newest_judged(health, now + AHEAD)
        self._published[partition] = published
        self._told[partition] = announced_before(health) if published is not None else {}
        if published is None:
            if not wrong and records:
                return None
            if wrong:
                fields = {"partition": partition, "error": wrong}
                _logger.warning("health.unreadable", extra={"fields": fields})
            return now - self._lookback
        found = self._fitting(partition, records.get(Source(self._topics.checkpoints, partition)))
        # The two are written together. A later one than the health record would leave seconds out of that topic; of one
        # that is much older the writing had failed, and more would be read again than without.
        if found is not None and found.time <= published <= found.time + _CHECKPOINT_BEHIND:
            self._checkpoints[partition] = found
            return found.time - self._window_lookback
        return published - self._lookback

    def _fitting(self, partition: int, record: bytes | None) -> Checkpoint | None:
        """The checkpoint of a record, if it is of the triggers of today."""
        try:
            found = checkpoint.decode(record) if record else None
        except CheckpointError as error:
            _logger.warning("checkpoint.unreadable", extra={"fields": {"partition": partition, "error": str(error)}})
            return None
        return found if found is not None and found.of == self._identity(partition) else None

    async def _take(self, stream: object) -> None:
        """Judge the shards side by side: in turn, the last one would wait until the commands of all others have been
        acknowledged. Slices of one shard follow each other."""
        under_way: dict[int, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            async for event in stream.events():  # type: ignore[attr-defined]
                delivery: Delivery = event.value
                partition = delivery.slice.source.partition
                if partition in under_way:
                    await under_way[partition]
                under_way[partition] = group.create_task(self._judge(delivery))

    async def _judge(self, delivery: Delivery) -> None:
        """Judge what a slice completes. An error ends the app and the process: Faust would start the agent anew, and go
        on in shards that have lost a part of a slice."""
        try:
            await self._judge_all(delivery)
        except Exception as error:
            await self.app.crash(error)
            raise

    async def _judge_all(self, delivery: Delivery) -> None:
        source = delivery.slice.source
        shard = self.shards.get(source.partition)
        # A slice from before a rebalance belongs to the shard of before.
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
            await self._publish(shard, second)

    async def _publish(self, shard: Shard, second: EvaluatedSecond) -> None:
        if second.ill:
            await self._handlers.firing(second)
        told = [self._handlers.transition(spec, change, second.judged_at) for spec, change in second.transitions]
        for change in second.standing:
            told.append(written := self._handlers.standing(change))
            written.add_done_callback(partial(_announced, shard, change))
        for habit, drift in second.drifts:
            self._handlers.drift(habit, drift)
        await self._give_way(begin=bool(second.firing))
        if second.health is not None:
            # The process that takes over publishes no event of a second that has a health record, so the events go
            # first. It uses no checkpoint that is later than the newest health record.
            told = [self._send_health(shard.partition, second.health, told)]
        if not second.muted and second.time % EVERY < self._evaluate_every:
            for record in shard.learnt():
                key = "/".join(record.key).encode()
                self._outbox.put(Record(self._topics.healthy, encode(record), key, 0))
        if (
            not second.muted
            and (second.time + shard.partition) % checkpoint.EVERY < self._settings.shard.evaluate_every
        ):
            self._send_checkpoint(shard, told)
        # The looks after a flip come last, a shard at a time, so that they delay no other flip.
        async with self._looking:
            await self._handlers.judged(second)
        if second.muted:
            # A long replay must not keep heartbeats and the health server waiting, nor outrun its health records.
            await self._outbox.room(self._topics.health)
            await asyncio.sleep(0)

    async def _give_way(self, *, begin: bool) -> None:
        """Wait until the commands and flips of all shards have passed."""
        loop = asyncio.get_running_loop()
        if begin:
            self._way_until = loop.time() + _WAY
        # Another shard may put the time off meanwhile, so there is no event to wait for.
        while (left := self._way_until - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)

    def _send_health(
        self, partition: int, frame: Health, after: Collection[asyncio.Future[None]] = ()
    ) -> asyncio.Future[None]:
        return self._outbox.put(Record(self._topics.health, encoder.encode(frame), partition=partition), after=after)

    def _send_checkpoint(self, shard: Shard, after: Collection[asyncio.Future[None]]) -> None:
        found = shard.checkpoint(self._identity(shard.partition))
        if found is None or shard.partition in self._too_large:
            return
        try:
            value = checkpoint.encode(found)
        except CheckpointError as error:
            self._too_large.add(shard.partition)
            _logger.warning("checkpoint.too-large", extra={"fields": {"error": str(error)}})
            return
        key = str(shard.partition).encode()
        self._outbox.put(Record(self._topics.checkpoints, value, key, shard.partition), after=after)

    async def _tick(self) -> None:
        """Once a second: publish and announce what only the clock shows, that nothing comes or comes too late."""
        now = self._clock.now()
        await self._end_if_ahead(now)
        for partition, shard in self.shards.items():
            condition = shard.condition(now)
            if condition.status != "live":
                self._send_health(partition, shard.unknown_health(now))
            change = self._announcements.observe(partition, condition, now.monotonic)
            if change is not None:
                self._handlers.inability(partition, condition, change == "begun")

    async def _end_if_ahead(self, now: Now) -> None:
        """End the process where it has judged seconds that are yet to come: its clock was wrong then, and the next
        process reads the log by the right one. Not at once, because the clock may be wrong now.
        """
        ahead = max((ahead_of(shard.time, now) for shard in self.shards.values()), default=0.0)
        if ahead == 0.0:
            self._ahead_since = None
            return
        self._ahead_since = self._ahead_since or now.monotonic
        if now.monotonic - self._ahead_since >= _AHEAD_FOR:
            await self.app.crash(ClockError(f"seconds were judged up to {ahead:.0f} s ahead of this machine's clock"))


def _announced(shard: Shard, change: Standing, written: asyncio.Future[None]) -> None:
    """Note that a change is published; one that is not will be published by the process that takes over."""
    if not written.cancelled() and written.exception() is None:
        shard.announced(change)
