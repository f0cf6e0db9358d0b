"""Samples of some instances are late or rejected: the other instances are judged, and a real fault is turned off."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.scene import FLAG, scene


def late(instance: int, fields: dict[str, Any]) -> dict[str, Any]:
    """One instance's clock is ten minutes behind."""
    return {**fields, "ts": time.time() - 600, "recorded": time.time()} if instance == 0 else fields


def unreadable(instance: int, fields: dict[str, Any]) -> dict[str, Any]:
    """One instance sends a status that cannot be read, and no outcome."""
    return {**fields, "status": "broken"} if instance == 0 else fields


def rejected(instance: int, fields: dict[str, Any]) -> dict[str, Any]:
    """One instance sends its times in milliseconds."""
    return {**fields, "ts": 1000 * time.time(), "recorded": time.time()} if instance == 0 else fields


@pytest.mark.parametrize("shape", [late, unreadable, rejected], ids=lambda shape: shape.__name__)
async def test_one_instance_of_ten_that_sends_rubbish_does_not_disarm_its_service(
    kafka: str, topic_prefix: str, tmp_path: Path, shape: Any
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as it:
        worker = it.deployment.start()
        await it.deployment.ready(worker)
        await it.until_ok()
        it.traffic.shape = shape
        it.traffic.failing = 0.8
        await it.flipped()
        assert it.witness.changes(FLAG) == ["on", "off"]


@pytest.mark.parametrize("shape", [late, unreadable, rejected], ids=lambda shape: shape.__name__)
async def test_a_service_whose_instances_all_send_rubbish_is_never_well_and_a_person_hears_of_it(
    kafka: str, topic_prefix: str, tmp_path: Path, shape: Any
) -> None:
    async with scene(tmp_path, kafka, topic_prefix, unknown_alert="10s", unknown_grace="0s") as it:
        worker = it.deployment.start()
        await it.deployment.ready(worker)
        await it.until_ok()
        it.traffic.shape = lambda instance, fields: shape(0, fields)
        event = await it.event_where(
            lambda event: event.type == "flipback.inability" and event.subject == f"production/{FLAG}"
        )
        assert event.data["reason"]
        last = {frame.partition: frame for frame in await it.deployment.health() if frame.status == "live"}
        assert {trigger.state for frame in last.values() for trigger in frame.triggers} == {"unknown"}
