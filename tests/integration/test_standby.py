"""Two complete workers: one acts, the other stands by, and takes over where the first one ended or stood still."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agent.commands import Command, verify
from agent.events import FLAG_VERIFIED, FLAG_WRITTEN, trigger_type
from agent.keys import load_public
from streams import checkpoint
from streams.log import read_to_end
from tests.telemetry import Telemetry, counted, telemetry
from tests.worker import Deployment

FLAG = {
    "flag": "bad",
    "service": "cart",
    "triggers": [{"name": "errors", "when": "error_rate@on > 20% over 6s for 6s", "min_samples": 30, "fast": False}],
}


async def traffic(source: Telemetry, stop: asyncio.Event, status: dict[str, int]) -> None:
    """Requests of both variants to all partitions; `status["on"]` may be changed while it runs."""
    while not stop.is_set():
        for variant in ("on", "off"):
            answer = status[variant]
            await source.send(source.sent // 2 % 8, "cart", status=answer, flags={"bad": variant})
        await asyncio.sleep(0.02)
    await source.flush()


async def told(deployment: Deployment, kind: str, within: float = 60) -> None:
    """Wait for an event."""
    async with asyncio.timeout(within):
        while not any(event.type == kind for event in await deployment.events()):
            await asyncio.sleep(0.1)


async def effective_flips(deployment: Deployment) -> int:
    """Writes of the flag, by the audit log: an event told twice has one id."""
    events = await deployment.events()
    verified = {event.id for event in events if event.type == FLAG_VERIFIED}
    written = {event.id for event in events if event.type == FLAG_WRITTEN}
    assert len(written) == len(verified)
    return len(written)


@pytest.mark.parametrize("victim", [0, 1])
async def test_whoever_is_killed_in_the_middle_of_an_incident_the_other_completes_it(
    kafka: str, topic_prefix: str, tmp_path: Path, victim: int
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG])
    await deployment.create_topics()
    stop, status = asyncio.Event(), {"on": 200, "off": 200}
    try:
        first = deployment.start()
        await deployment.ready(first)
        second = deployment.start()
        await deployment.ready(second)
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(traffic(source, stop, status))
            await told(deployment, trigger_type("ok"))
            status["on"] = 500
            await told(deployment, trigger_type("pending"))
            # Between them the two have the monitor of this service and the executor: each of them goes once.
            deployment.kill((first, second)[victim])
            await deployment.flipped("bad")
            await told(deployment, FLAG_VERIFIED)
            stop.set()
        assert await effective_flips(deployment) == 1
        publics = {key.id: key for key in [load_public(tmp_path / ".flipback" / "flipback.pub")]}
        records = await read_to_end(deployment.topics.commands, deployment.client)
        commands = [verify(record.value or b"", publics) for record in records]
        # However many were sent: one incident, one id.
        assert len({command.id for command in commands if isinstance(command, Command)}) == 1
        assert len(list((tmp_path / ".flipback" / "ledger").glob("*.jsonl"))) == 1
    finally:
        deployment.close()


async def test_a_worker_that_stood_still_and_comes_back_changes_no_count_and_flips_nothing_again(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    # The seconds of the pause must not end before its records have been read again by somebody.
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG], settings={"max_lateness": "5s"})
    await deployment.create_topics()
    stop, status = asyncio.Event(), {"on": 200, "off": 200}
    try:
        frozen = deployment.start()
        await deployment.ready(frozen)
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(traffic(source, stop, status))
            await told(deployment, trigger_type("ok"))
            status["on"] = 500
            frozen.send_signal(signal.SIGSTOP)
            await deployment.flipped("bad")
            frozen.send_signal(signal.SIGCONT)
            # What it still had to write is written, then it takes partitions as a member of the group again.
            back = time.time()
            async with asyncio.timeout(60):
                while max(frame.time for frame in await deployment.health() if frame.scopes) < back + 2:
                    await asyncio.sleep(0.5)
            stop.set()
        async with asyncio.timeout(60):
            while counted(await deployment.health()) != dict(source.exact):
                await asyncio.sleep(0.5)
        assert frozen.poll() is None
        assert await effective_flips(deployment) == 1
    finally:
        deployment.close()


async def test_sigterm_under_traffic_ends_in_3_s_and_a_restart_reads_only_open_seconds_again(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG])
    await deployment.create_topics()
    stop, status = asyncio.Event(), {"on": 200, "off": 200}
    try:
        worker = deployment.start()
        await deployment.ready(worker)
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(traffic(source, stop, status))
            begun = time.time()
            async with asyncio.timeout(60):
                while not any(frame.scopes and frame.time > begun + 4 for frame in await deployment.health()):
                    await asyncio.sleep(0.2)
            judged = max(frame.time for frame in await deployment.health() if frame.scopes)
            begun = time.monotonic()
            worker.terminate()
            while worker.poll() is None:
                await asyncio.sleep(0.01)
            took = time.monotonic() - begun
            assert worker.returncode == 0
            assert took < 3
            stop.set()
        again = await _times_to_read_again(deployment)
        assert again
        # Every second that was judged before the signal is behind the committed offsets of all partitions.
        assert min(again) >= judged
        await deployment.ready(deployment.start())
        async with asyncio.timeout(60):
            while counted(await deployment.health()) != dict(source.exact):
                await asyncio.sleep(0.3)
    finally:
        deployment.close()


async def test_a_restart_goes_on_with_what_was_held_from_the_checkpoint(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    held = {"name": "errors", "when": "error_rate@on > 20% over 6s for 25s", "min_samples": 30, "fast": False}
    deployment = Deployment(tmp_path, kafka, topic_prefix, [{**FLAG, "triggers": [held]}])
    await deployment.create_topics()
    stop, status = asyncio.Event(), {"on": 200, "off": 200}
    try:
        worker = deployment.start()
        await deployment.ready(worker)
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(traffic(source, stop, status))
            await told(deployment, trigger_type("ok"))
            status["on"] = 500
            await told(deployment, trigger_type("pending"))
            (pending,) = [e for e in await deployment.events() if e.type == trigger_type("pending")]
            async with asyncio.timeout(60):
                while len(await _checkpoints(deployment, pending.time)) < 4:
                    await asyncio.sleep(0.2)
            deployment.kill(worker)
            await deployment.ready(deployment.start())
            await deployment.flipped("bad")
            stop.set()
        log = (tmp_path / "worker-1.log").read_bytes().splitlines()
        (assigned,) = [line for line in map(json.loads, log) if line["event"] == "monitor.assigned"]
        assert (assigned["partitions"], assigned["checkpoints"]) == (4, 4)
        # The flip waits for no event.
        await told(deployment, trigger_type("firing"))
        firing = [e.time for e in await deployment.events() if e.type == trigger_type("firing")]
        assert firing == [pending.time + 25]
    finally:
        deployment.close()


async def _checkpoints(deployment: Deployment, after: float) -> set[int]:
    """The partitions that have a checkpoint of a time after this one."""
    records = await read_to_end(deployment.topics.checkpoints, deployment.client)
    return {record.partition for record in records if checkpoint.decode(record.value).time > after}


async def _times_to_read_again(deployment: Deployment) -> list[float]:
    """Times (Unix seconds) of the telemetry records from the committed offsets on."""
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
