"""Topics that take no records delay neither verdicts nor flips, and a person hears of it (promises P3 and P6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from agent.events import FLAG_VERIFIED, INABILITY, trigger_type
from streams.topics import create
from tests.telemetry import Telemetry, telemetry
from tests.worker import Deployment

FLAG = {
    "flag": "bad",
    "service": "cart",
    "triggers": [{"name": "errors", "when": "error_rate@on > 20% over 6s for 4s", "min_samples": 30, "fast": False}],
}


async def traffic(source: Telemetry, stop: asyncio.Event, status: dict[str, int]) -> None:
    while not stop.is_set():
        for variant, answer in status.items():
            await source.send(source.sent // 2 % 8, "cart", status=answer, flags={"bad": variant})
        await asyncio.sleep(0.02)
    await source.flush()


async def set_most_bytes(deployment: Deployment, topic: str, most: int) -> None:
    admin = AIOKafkaAdminClient(**deployment.client)
    await admin.start()
    try:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": str(most)})]
        )
    finally:
        await admin.close()


async def delete(deployment: Deployment, *topics: str) -> None:
    admin = AIOKafkaAdminClient(**deployment.client)
    await admin.start()
    try:
        await admin.delete_topics([*topics])
    finally:
        await admin.close()


def log(deployment: Deployment) -> list[dict[str, Any]]:
    text = (deployment.directory / "worker-0.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def announced(deployment: Deployment, topic: str) -> bool:
    return any(row["event"] == INABILITY and row.get("subject") == topic for row in log(deployment))


async def until(found: Callable[[], bool], within: float = 60) -> None:
    async with asyncio.timeout(within):
        while not found():
            await asyncio.sleep(0.1)


async def not_ready(session: aiohttp.ClientSession, url: str, topic: str) -> dict[str, Any]:
    """What /readyz answers once it says that the topic takes no records."""
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{url}/readyz") as answer:
                roles: dict[str, Any] = (await answer.json())["roles"]
                if answer.status == 503 and f"{topic} takes no records" in roles["monitor"]["detail"]:
                    return roles
            await asyncio.sleep(0.2)


async def judged_live(deployment: Deployment) -> None:
    async with asyncio.timeout(60):
        while not any(record.status == "live" for record in await deployment.health()):
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("how", ["deleted", "refusing"])
async def test_a_flip_does_not_wait_for_the_audit_topic_whose_absence_is_announced(
    kafka: str, topic_prefix: str, tmp_path: Path, how: str
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG])
    await deployment.create_topics()
    stop, status = asyncio.Event(), {"on": 200, "off": 200}
    events = deployment.topics.events
    try:
        worker = deployment.start()
        await deployment.ready(worker)
        url = next(str(row["health"]) for row in log(deployment) if row["event"] == "run.ready")
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(traffic(source, stop, status))
            await judged_live(deployment)
            if how == "deleted":
                await delete(deployment, events)
            else:
                await set_most_bytes(deployment, events, 1)
            status["on"] = 500
            await deployment.flipped("bad")
            async with aiohttp.ClientSession() as session:
                roles = await not_ready(session, url, events)
            assert not roles["executor"]["ready"]
            await until(lambda: announced(deployment, events))
            if how == "deleted":
                specs = [spec for spec in deployment.topics.specs(4, 600) if spec.name == events]
                await create(specs, replication=1, connection=deployment.client)
            else:
                await set_most_bytes(deployment, events, 1_000_000)
            wanted = {trigger_type("pending"), trigger_type("firing"), FLAG_VERIFIED}
            async with asyncio.timeout(60):
                while True:
                    told = await deployment.events()
                    states = [e.data["state"] for e in told if e.type == INABILITY and e.subject == events]
                    if wanted <= {event.type for event in told} and states == ["begun", "ended"]:
                        break
                    await asyncio.sleep(0.2)
            assert worker.poll() is None
            stop.set()
    finally:
        deployment.close()


@pytest.mark.parametrize("which", ["health", "compacted"])
async def test_judging_and_flips_go_on_without_health_checkpoints_and_tables(
    kafka: str, topic_prefix: str, tmp_path: Path, which: str
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG])
    await deployment.create_topics()
    stop, status = asyncio.Event(), {"on": 200, "off": 200}
    topics = deployment.topics
    gone = (
        [topics.health] if which == "health" else [topics.checkpoints, topics.healthy, topics.incidents, topics.flags]
    )
    try:
        worker = deployment.start()
        await deployment.ready(worker)
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(traffic(source, stop, status))
            await judged_live(deployment)
            await delete(deployment, *gone)
            # Longer than what a role may stand still for (streams.liveness.STUCK_AFTER), which ended the process.
            subject = topics.health if which == "health" else topics.checkpoints
            await until(lambda: announced(deployment, subject), 90)
            status["on"] = 500
            await deployment.flipped("bad")
            assert worker.poll() is None
            stop.set()
    finally:
        deployment.close()
