"""The wall clock of flipback's machine steps forward and back: counting goes on, and a fault is still turned off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.scene import FLAG, scene
from tests.support.clock import Clock

PATIENCE_S = 120
"""Long, because libfaketime makes each reading of the clock slow, and other tests run at the same time."""


@pytest.mark.parametrize("seconds", [600, -600])
async def test_a_clock_that_is_wrong_for_two_seconds_costs_no_more_than_some_seconds(
    kafka: str, topic_prefix: str, tmp_path: Path, clock: Clock, seconds: int
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as it:
        worker = it.deployment.start(environment=clock.environment)
        await it.deployment.ready(worker)
        await it.until_ok()
        clock.step(seconds)
        await asyncio.sleep(2)
        clock.step(0)
        it.traffic.failing = 0.8
        await it.flipped(within=PATIENCE_S)
        assert it.witness.changes(FLAG) == ["on", "off"]


async def test_while_the_clock_is_wrong_verdicts_are_not_live_and_nothing_is_turned_back(
    kafka: str, topic_prefix: str, tmp_path: Path, clock: Clock
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as it:
        worker = it.deployment.start(environment=clock.environment)
        await it.deployment.ready(worker)
        await it.until_ok()
        clock.step(-600)
        event = await it.event_where(lambda event: event.type == "flipback.inability")
        assert event.data["reason"]
        assert it.witness.changes(FLAG) == ["on"]
        clock.step(0)
        it.traffic.failing = 0.8
        await it.flipped(within=PATIENCE_S)
