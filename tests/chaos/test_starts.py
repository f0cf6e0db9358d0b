"""A worker that is paused while it starts, and a fault that ended before a worker started."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.scene import FLAG, scene


@pytest.mark.parametrize("paused", [0.7, 1.5, 3.0])
async def test_a_worker_that_stood_still_while_it_started_lives_and_judges(
    kafka: str, topic_prefix: str, tmp_path: Path, paused: float
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as it:
        worker = it.deployment.start()
        log = tmp_path / "worker-0.log"
        async with asyncio.timeout(120):
            while b'"monitor.assigned"' not in log.read_bytes():
                await asyncio.sleep(0.01)
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(paused)
        os.kill(worker.pid, signal.SIGCONT)
        await it.deployment.ready(worker)
        await it.until_ok()
        it.traffic.failing = 0.8
        await it.flipped()
        assert worker.poll() is None


async def test_a_fault_that_was_over_before_the_start_turns_nothing_back(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as it:
        first = it.deployment.start()
        await it.deployment.ready(first)
        await it.until_ok()
        it.deployment.kill(first)
        it.traffic.failing = 0.8
        await asyncio.sleep(30)
        it.traffic.failing = 0.0
        over = time.time()
        await asyncio.sleep(10)
        second = it.deployment.start()
        await it.deployment.ready(second)
        async with asyncio.timeout(120):
            # Wait for live verdicts on seconds after all that was read again.
            while not any(frame.status == "live" and frame.time > over + 30 for frame in await it.deployment.health()):
                await asyncio.sleep(0.5)
        assert it.witness.changes(FLAG) == ["on"]
        it.traffic.failing = 0.8
        await it.flipped()
