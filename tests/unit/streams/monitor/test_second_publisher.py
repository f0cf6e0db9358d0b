"""In which order the records of an evaluated second are written, and what its shard hears of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

from streams.kafka.outbox import Outbox, OutboxError, Record
from streams.kafka.topics import Topics
from streams.monitor import checkpoint
from streams.monitor.checkpoint import Checkpoint
from streams.monitor.checkpoint_records import CheckpointRecords
from streams.monitor.handlers import Handlers
from streams.monitor.health import health
from streams.monitor.second_publisher import SecondPublisher
from tests.unit.streams.monitor.test_role import HANDLERS, monitor_settings, nothing, published


def publisher(handlers: Handlers, outbox: Outbox) -> SecondPublisher:
    checkpoints = CheckpointRecords(monitor_settings(partitions=1))
    return SecondPublisher(Topics(), handlers, outbox, checkpoints, evaluate_every=1)


async def test_events_are_written_before_the_health_of_their_second_and_that_before_its_checkpoint() -> None:
    written: list[str] = []

    async def write(record: Record) -> None:
        # The earlier a topic comes in this order, the longer its broker takes.
        for _ in range({"events": 30, "flipback.health": 20}.get(record.topic, 0)):
            await asyncio.sleep(0)
        written.append(record.topic)

    outbox = Outbox(write)
    made = publisher(replace(HANDLERS, transition=lambda *_: outbox.put(Record("events", b""))), outbox)
    second = SimpleNamespace(
        ill=frozenset(),
        transitions=[(None, None)],
        judged_at=None,
        drifts=[],
        standing=[],
        firing=[],
        health=FRAME,
        muted=False,
        time=checkpoint.EVERY,
    )
    shard = SimpleNamespace(partition=0, checkpoint=lambda of: CHECKPOINT, healthy_rates=list)
    await made.publish(shard, second)  # type: ignore[arg-type]
    await outbox.flush(10)
    assert written == ["events", "flipback.health", "flipback.checkpoints"]


FRAME = health(10, 0, None, [], at=12.0, status="live")
CHECKPOINT = Checkpoint(of="these", time=10, stale=(), memory={})


async def test_a_shard_hears_that_an_unknown_was_announced_when_that_is_written() -> None:
    events: list[asyncio.Future[None]] = []
    heard: list[object] = []

    def standing(_: object) -> asyncio.Future[None]:
        events.append(published())
        return events[-1]

    made = publisher(replace(HANDLERS, standing=standing), Outbox(nothing))
    shard = SimpleNamespace(partition=0, announced=heard.append, healthy_rates=list)
    changes = ["first", "second"]
    second = SimpleNamespace(
        time=1, muted=True, ill=(), firing=(), transitions=(), drifts=(), health=None, standing=changes
    )
    await made.publish(shard, second)  # type: ignore[arg-type]
    assert heard == []
    events[0].set_exception(OutboxError("dropped"))
    events[1].set_result(None)
    await asyncio.sleep(0)
    assert heard == ["second"]
