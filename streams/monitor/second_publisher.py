"""What follows from an evaluated second: commands first, then events, health, healthy rates and checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

from streams.kafka.outbox import Outbox, Record
from streams.kafka.topics import Topics
from streams.monitor import checkpoint
from streams.monitor.checkpoint_records import CheckpointRecords
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.handlers import Handlers
from streams.monitor.health import Health, encoder
from streams.monitor.healthy_rates import EVERY, encode
from streams.monitor.shard import Shard
from streams.monitor.standing import Standing

_GIVE_WAY = 0.1
"""Seconds for which other work waits after a firing second. In one process the command and its flip take this long, and
the other work would double that."""


class SecondPublisher:
    """Calls the handlers of evaluated seconds of all shards and puts their records into the outbox."""

    def __init__(
        self,
        topics: Topics,
        handlers: Handlers,
        outbox: Outbox,
        checkpoints: CheckpointRecords,
        *,
        evaluate_every: int,
    ) -> None:
        self._topics = topics
        self._handlers = handlers
        self._outbox = outbox
        self._checkpoints = checkpoints
        self._evaluate_every = evaluate_every
        self._after_flip = asyncio.Lock()
        self._give_way_until = 0.0

    async def publish(self, shard: Shard, second: EvaluatedSecond) -> None:
        """Call the handlers and publish the records of a second; returns when its shard may judge the next one."""
        if second.ill:
            await self._handlers.firing(second)
        events = [self._handlers.transition(spec, change, second.judged_at) for spec, change in second.transitions]
        for change in second.standing:
            events.append(written := self._handlers.standing(change))
            written.add_done_callback(partial(_announced, shard, change))
        for target, drift in second.drifts:
            self._handlers.drift(target, drift)
        await self._give_way(begin=bool(second.firing))
        if second.health is not None:
            # The process that takes over publishes no event of a second that has a health record, so the events come
            # first. It uses no checkpoint later than the newest health record, so the checkpoint comes last.
            events = [self.send_health(shard.partition, second.health, events)]
        if not second.muted and second.time % EVERY < self._evaluate_every:
            for record in shard.healthy_rates():
                key = "/".join(record.key).encode()
                self._outbox.put(Record(self._topics.healthy, encode(record), key, 0))
        if not second.muted and (second.time + shard.partition) % checkpoint.EVERY < self._evaluate_every:
            self._send_checkpoint(shard, events)
        # The checks after a flip come last, one shard at a time, so that they delay no other flip.
        async with self._after_flip:
            await self._handlers.judged(second)
        if second.muted:
            # A long replay must not keep heartbeats and the health server waiting, nor outrun its health records.
            await self._outbox.room(self._topics.health)
            await asyncio.sleep(0)

    def send_health(
        self, partition: int, frame: Health, after: Collection[asyncio.Future[None]] = ()
    ) -> asyncio.Future[None]:
        """Publish a health record after the futures `after`; the returned future is done when it is published."""
        return self._outbox.put(Record(self._topics.health, encoder.encode(frame), partition=partition), after=after)

    def _send_checkpoint(self, shard: Shard, after: Collection[asyncio.Future[None]]) -> None:
        value = self._checkpoints.encode(shard)
        if value is not None:
            key = str(shard.partition).encode()
            self._outbox.put(Record(self._topics.checkpoints, value, key, shard.partition), after=after)

    async def _give_way(self, *, begin: bool) -> None:
        """Wait until `_GIVE_WAY` seconds after the last firing second of any shard; `begin`: this one fires."""
        loop = asyncio.get_running_loop()
        if begin:
            self._give_way_until = loop.time() + _GIVE_WAY
        # Another shard may extend the time meanwhile, so there is no event to wait for.
        while (left := self._give_way_until - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)


def _announced(shard: Shard, change: Standing, written: asyncio.Future[None]) -> None:
    """Record that a change is published; one that is not will be published by the process that takes over."""
    if not written.cancelled() and written.exception() is None:
        shard.announced(change)
