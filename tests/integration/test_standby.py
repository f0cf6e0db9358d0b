"""Two workers with all roles: one acts and the other is a standby, which takes over if the first ends or freezes."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agent.commands.command import Command, verify
from agent.commands.keys import load_public
from agent.events.cloudevents import FLAG_VERIFIED, FLAG_WRITTEN, trigger_type
from streams.kafka.reader import read_to_end
from streams.monitor import checkpoint
from streams.monitor.health import Health
from tests.chaos.scene import ENTRY, TRIGGER, Scene, scene
from tests.support.telemetry import counted
from tests.support.worker import Deployment


async def effective_flips(deployment: Deployment) -> int:
    """How often the flag was written, by the audit log; an event that was published twice counts once."""
    events = await deployment.events()
    verified = {event.id for event in events if event.type == FLAG_VERIFIED}
    written = {event.id for event in events if event.type == FLAG_WRITTEN}
    assert len(written) == len(verified)
    return len(written)


async def judged(at: Scene, found: Callable[[list[Health]], Any]) -> list[Health]:
    """Read the health records until `found` is true of them, and return them."""
    async with asyncio.timeout(120):
        while not found(frames := await at.deployment.health()):
            await asyncio.sleep(0.3)
    return frames


async def all_counted(at: Scene) -> None:
    """End the traffic, and wait until every sent sample is counted exactly once."""
    await at.traffic.end()
    await judged(at, lambda frames: counted(frames) == dict(at.traffic.source.exact))


@pytest.mark.parametrize("victim", [0, 1])
async def test_whoever_is_killed_in_the_middle_of_an_incident_the_other_completes_it(
    kafka: str, topic_prefix: str, tmp_path: Path, victim: int
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        deployment = at.deployment
        workers = []
        for _ in range(2):
            workers.append(deployment.start())
            await deployment.ready(workers[-1])
        await at.until_ok()
        at.traffic.failing = 1.0
        await at.event_of(trigger_type("pending"))
        # One worker has the monitor of this service and one, maybe the same, the executor; each is killed once.
        deployment.kill(workers[victim])
        await at.flipped()
        await at.event_of(FLAG_VERIFIED)
        assert await effective_flips(deployment) == 1
        publics = {key.id: key for key in [load_public(tmp_path / ".flipback" / "flipback.pub")]}
        records = await read_to_end(deployment.topics.commands, deployment.client)
        commands = [verify(record.value or b"", publics) for record in records]
        # Commands of one incident have one id, however many were sent.
        assert len({command.id for command in commands if isinstance(command, Command)}) == 1
        assert len(list((tmp_path / ".flipback" / "ledger").glob("*.jsonl"))) == 1


async def test_a_worker_that_stood_still_and_comes_back_changes_no_count_and_flips_nothing_again(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    # The lateness is long enough for the other worker to read the records of the pause before their seconds close.
    async with scene(tmp_path, kafka, topic_prefix, quiet=True, max_lateness="5s") as at:
        frozen = at.deployment.start()
        await at.deployment.ready(frozen)
        await at.deployment.ready(at.deployment.start())
        at.traffic.begin()
        await at.until_ok()
        at.traffic.failing = 1.0
        frozen.send_signal(signal.SIGSTOP)
        await at.flipped()
        frozen.send_signal(signal.SIGCONT)
        # The worker writes its pending records, joins the group again and gets partitions.
        back = time.time()
        await judged(at, lambda frames: max(frame.time for frame in frames if frame.scopes) >= back + 2)
        await all_counted(at)
        assert frozen.poll() is None
        assert await effective_flips(at.deployment) == 1


async def test_sigterm_under_traffic_ends_the_worker_and_a_restart_reads_only_open_seconds_again(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix, quiet=True) as at:
        worker = at.deployment.start()
        await at.deployment.ready(worker)
        at.traffic.begin()
        begun = time.time()
        frames = await judged(at, lambda frames: any(f.scopes and f.time > begun + 4 for f in frames))
        last = max(frame.time for frame in frames if frame.scopes)
        worker.terminate()
        # tests/unit/agent/runtime/test_shutdown.py checks that it ends within 3 s, whatever is running.
        assert await asyncio.to_thread(worker.wait, 60) == 0
        await at.traffic.end()
        again = await _times_to_read_again(at.deployment)
        assert again
        # No second that was evaluated before the signal is read again.
        assert min(again) >= last
        await at.deployment.ready(at.deployment.start())
        await all_counted(at)


async def test_a_restart_goes_on_with_what_was_held_from_the_checkpoint(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    held = {**TRIGGER, "when": "error_rate@on > 20% over 6s for 25s"}
    async with scene(tmp_path, kafka, topic_prefix, [{**ENTRY, "triggers": [held]}]) as at:
        deployment = at.deployment
        worker = deployment.start()
        await deployment.ready(worker)
        await at.until_ok()
        at.traffic.failing = 1.0
        pending = await at.event_of(trigger_type("pending"))
        async with asyncio.timeout(120):
            while len(await _checkpoints(deployment, pending.time)) < 4:
                await asyncio.sleep(0.2)
        deployment.kill(worker)
        await deployment.ready(deployment.start())
        await at.flipped()
        log = (tmp_path / "worker-1.log").read_bytes().splitlines()
        (assigned,) = [line for line in map(json.loads, log) if line["event"] == "monitor.assigned"]
        assert (assigned["partitions"], assigned["checkpoints"]) == (4, 4)
        # The event of firing may come after the flip, which does not wait for it.
        await at.event_of(trigger_type("firing"))
        firing = [e.time for e in await deployment.events() if e.type == trigger_type("firing")]
        assert firing == [pending.time + 25]


async def _checkpoints(deployment: Deployment, after: float) -> set[int]:
    """The partitions that have a checkpoint newer than `after`."""
    records = await read_to_end(deployment.topics.checkpoints, deployment.client)
    return {record.partition for record in records if checkpoint.decode(record.value).time > after}


async def _times_to_read_again(deployment: Deployment) -> list[float]:
    """Timestamps (Unix seconds) of the telemetry records from the committed offsets on."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=deployment.kafka, group_id=f"{deployment.prefix}-ingest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(deployment.telemetry, number) for number in range(8)]
        consumer.assign(partitions)
        committed = {tp: await consumer.committed(tp) for tp in partitions}
        assert None not in committed.values()
        ends = await consumer.end_offsets(partitions)
        for tp, offset in committed.items():
            consumer.seek(tp, offset)
        found = []
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [record.timestamp / 1000 for record in records]
        return found
    finally:
        await consumer.stop()
