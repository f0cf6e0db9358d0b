"""Topics that accept no records delay neither verdicts nor flips, and are announced (docs/promises.md, P3 and P6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from agent.events.cloudevents import FLAG_VERIFIED, INABILITY, trigger_type
from tests.chaos.scene import Scene, scene
from tests.support.worker import Deployment


@asynccontextmanager
async def healthy_scene(directory: Path, kafka: str, prefix: str) -> AsyncIterator[Scene]:
    """A scene with one worker, whose trigger is ok; the worker must run to the end."""
    async with scene(directory, kafka, prefix) as at:
        worker = at.deployment.start()
        await at.deployment.ready(worker)
        await at.until_ok()
        yield at
        assert worker.poll() is None


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
    rows = [row for row in log(deployment) if row["event"] == INABILITY and row.get("subject") == topic]
    return bool(rows)


async def until(found: Callable[[], bool], within: float = 120) -> None:
    async with asyncio.timeout(within):
        while not found():
            await asyncio.sleep(0.1)


async def not_ready(session: aiohttp.ClientSession, url: str, topic: str) -> dict[str, Any]:
    """Request /readyz until it reports that the topic takes no records; returns the roles of the answer."""
    async with asyncio.timeout(120):
        while True:
            async with session.get(f"{url}/readyz") as answer:
                roles: dict[str, Any] = (await answer.json())["roles"]
                if answer.status == 503 and f"{topic} takes no records" in roles["monitor"]["detail"]:
                    return roles
            await asyncio.sleep(0.2)


async def test_a_flip_does_not_wait_for_an_audit_topic_that_refuses_writes_which_is_announced(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with healthy_scene(tmp_path, kafka, topic_prefix) as at:
        deployment, events = at.deployment, at.deployment.topics.events
        url = next(str(row["health"]) for row in log(deployment) if row["event"] == "run.ready")
        await set_most_bytes(deployment, events, 1)
        at.traffic.failing = 1.0
        await at.flipped()
        async with aiohttp.ClientSession() as session:
            roles = await not_ready(session, url, events)
        assert not roles["executor"]["ready"]
        await until(lambda: announced(deployment, events))
        await set_most_bytes(deployment, events, 1_000_000)
        await published(deployment, {"begun", "ended"})


async def published(deployment: Deployment, states: set[str]) -> None:
    """Wait until the audit log has the verdicts, the flip and both ends of the inability."""
    wanted = {trigger_type("pending"), trigger_type("firing"), FLAG_VERIFIED}
    async with asyncio.timeout(120):
        while True:
            found = await deployment.events()
            own = {e.data["state"] for e in found if e.type == INABILITY and e.subject == deployment.topics.events}
            if wanted <= {event.type for event in found} and states <= own:
                return
            await asyncio.sleep(0.2)


async def test_a_flip_does_not_wait_for_an_audit_topic_that_is_gone(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with healthy_scene(tmp_path, kafka, topic_prefix) as at:
        await delete(at.deployment, at.deployment.topics.events)
        at.traffic.failing = 1.0
        await at.flipped()
        # The topic is created again, and the waiting records are written to it.
        await published(at.deployment, set())


@pytest.mark.parametrize("which", ["health", "compacted"])
async def test_judging_and_flips_go_on_without_health_checkpoints_and_tables(
    kafka: str, topic_prefix: str, tmp_path: Path, which: str
) -> None:
    async with healthy_scene(tmp_path, kafka, topic_prefix) as at:
        topics = at.deployment.topics
        compacted = [topics.checkpoints, topics.healthy, topics.incidents, topics.flags]
        gone = [topics.health] if which == "health" else compacted
        await delete(at.deployment, *gone)
        # A missing topic is announced like one that takes no records.
        await until(lambda: announced(at.deployment, gone[0]), 90)
        at.traffic.failing = 1.0
        await at.flipped()
