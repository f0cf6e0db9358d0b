"""Only fresh evidence gives a command: neither a backlog nor a partition that lags; and silence is never health."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from agent.commands.command import Evidence
from agent.events.cloudevents import COMMAND_RECEIVED, INABILITY, Event, trigger_type
from tests.support.telemetry import Telemetry, telemetry
from tests.support.worker import Deployment

_FLAG = {
    "flag": "bad",
    "service": "cart",
    "triggers": [{"name": "errors", "when": "error_rate@on > 20% over 5s for 5s", "min_samples": 30, "fast": False}],
}
RATE = 20


async def live(source: Telemetry, until: float, *, status: int, partitions: range = range(8)) -> None:
    """Send requests of both variants until a Unix time; `status` is the status of those with "on"."""
    while time.time() < until:
        for number in range(2):
            on = number == 0
            await source.send(
                partitions[source.sent // 2 % len(partitions)],
                "cart",
                status=status if on else 200,
                flags={"bad": "on" if on else "off"},
            )
        await asyncio.sleep(1 / RATE)
    await source.flush()


async def commit_beginning(deployment: Deployment) -> None:
    """Commit offset 0 for all partitions, as an earlier run before all present records would have."""
    group = f"{deployment.prefix}-ingest"
    async with AIOKafkaConsumer(bootstrap_servers=deployment.kafka, group_id=group, enable_auto_commit=False) as reader:
        partitions = [TopicPartition(deployment.telemetry, number) for number in range(8)]
        reader.assign(partitions)
        await reader.commit(dict.fromkeys(partitions, 0))


async def test_a_backlog_of_errors_commands_nothing_and_a_live_fault_after_it_is_found(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    prefix = topic_prefix.rstrip(".")
    for name in ("new", "known"):
        (tmp_path / name).mkdir()
    await asyncio.gather(
        _backlog(Deployment(tmp_path / "new", kafka, f"{prefix}-new", [_FLAG]), known=False),
        _backlog(Deployment(tmp_path / "known", kafka, f"{prefix}-known", [_FLAG]), known=True),
    )


async def _backlog(deployment: Deployment, *, known: bool) -> None:
    """Start a deployment behind twenty minutes of errors: a new one, or one with committed offsets before them."""
    await deployment.create_topics()
    try:
        async with telemetry(deployment.kafka, deployment.telemetry) as source:
            newest = time.time() - 16
            # For a new deployment some partitions are empty: their watermarks come first, so its monitor begins in
            # the present.
            partitions = 8 if known else 5
            for number in range(1200 * 10):
                at = newest - 1200 + number / 10
                await source.send(number % partitions, "cart", ts=at, status=500, flags={"bad": "on"})
            await source.flush()
            if known:
                await commit_beginning(deployment)
            await deployment.ready(deployment.start())
            healthy_until = time.time() + 12
            await live(source, healthy_until, status=200)
            assert deployment.variant("bad") == "on"
            received = [event for event in await deployment.events() if event.type == COMMAND_RECEIVED]
            assert received == []
            if known:
                # The last 5 min of the backlog must have been evaluated, or the absence of commands proves nothing.
                async with asyncio.timeout(120):
                    while True:
                        old = [frame for frame in await deployment.health() if frame.time < newest and frame.triggers]
                        if sum(frame.triggers[0].state == "firing" for frame in old) > 200:
                            break
                        await asyncio.sleep(0.5)
                assert {frame.status for frame in old} == {"catching_up"}
            async with asyncio.timeout(120):
                while deployment.variant("bad") == "on":
                    await live(source, time.time() + 1, status=500)
        (command,) = [event.data["command"] for event in await deployment.events() if event.type == COMMAND_RECEIVED]
        assert command["evidence"]["first_true_at"] > healthy_until - 1
        assert set(command["evidence"]) == set(Evidence.__struct_fields__)
    finally:
        deployment.close()


async def test_traffic_on_one_partition_of_eight_is_judged_as_fast_as_on_all(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    for n in (1, 8):
        (tmp_path / str(n)).mkdir()
    delays = await asyncio.gather(
        *(_seconds_to_fire(kafka, f"{topic_prefix.rstrip('.')}-{n}", tmp_path / str(n), n) for n in (1, 8))
    )
    assert abs(delays[0] - delays[1]) <= 1


async def _seconds_to_fire(kafka: str, prefix: str, directory: Path, partitions: int) -> int:
    """Seconds of event time from the first second with errors to the evaluation that fires."""
    deployment = Deployment(directory, kafka, prefix, [_FLAG])
    await deployment.create_topics()
    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source:
            # Begin at a whole second, so that both deployments are compared at the same phase.
            begin = math.ceil(time.time()) + 6
            await live(source, begin, status=200, partitions=range(partitions))
            async with asyncio.timeout(120):
                while deployment.variant("bad") == "on":
                    await live(source, time.time() + 1, status=500, partitions=range(partitions))
        (fired,) = [event.time for event in await deployment.events() if event.type == trigger_type("firing")]
        return round(fired - begin)
    finally:
        deployment.close()


async def test_partitions_that_stall_beside_others_make_verdicts_unknown_and_are_announced(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    # The session timeout is longer than flipback waits for the stopped owner, so its partitions are not reassigned.
    deployment = Deployment(tmp_path, kafka, topic_prefix, [_FLAG], session_timeout="45s")
    await deployment.create_topics()
    try:
        # Roles in separate processes need keys that exist before they start.
        keys = await asyncio.create_subprocess_exec(
            *deployment.flipback("keys", "generate", "--dir", str(tmp_path / ".flipback"))
        )
        assert await keys.wait() == 0
        stalled = deployment.start("--roles", "ingest")
        others = [deployment.start("--roles", "ingest"), deployment.start("--roles", "monitor,executor")]
        for worker in (stalled, *others):
            await deployment.ready(worker)
        async with telemetry(kafka, deployment.telemetry) as source:
            async with asyncio.timeout(120):
                while not await _judged(deployment, {"ok"}):
                    await live(source, time.time() + 1, status=200)
            stalled.send_signal(signal.SIGSTOP)
            stopped = time.time()
            # The other half of the partitions shows only healthy traffic.
            async with asyncio.timeout(120):
                while not (begun := await _inabilities(deployment, "begun", stopped)):
                    await live(source, time.time() + 1, status=200)
            assert "requests/" in begun[0].data["reason"]
            assert await _judged(deployment, {"unknown"})
            judged = [frame for frame in await deployment.health() if frame.triggers and frame.time > stopped]
            assert not [frame for frame in judged if frame.triggers[0].state == "ok"]
            stalled.send_signal(signal.SIGCONT)
            async with asyncio.timeout(120):
                while not (await _inabilities(deployment, "ended", stopped) and await _judged(deployment, {"ok"})):
                    await live(source, time.time() + 1, status=200)
        assert deployment.variant("bad") == "on"
    finally:
        deployment.close()


async def _judged(deployment: Deployment, states: set[str]) -> bool:
    """Whether the newest verdict is one of these."""
    frames = [frame for frame in await deployment.health() if frame.triggers]
    return bool(frames) and frames[-1].triggers[0].state in states


async def _inabilities(deployment: Deployment, state: str, since: float) -> list[Event]:
    return [
        event
        for event in await deployment.events()
        if event.type == INABILITY and event.time > since and event.data.get("state") == state
    ]
