"""On SIGHUP with a bad configuration file, a running process keeps the configuration that it has."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.chaos.scene import FLAG, scene


async def test_a_file_that_became_bad_and_a_hangup_change_nothing_and_the_next_fault_is_turned_back(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        worker = at.deployment.start()
        await at.deployment.ready(worker)
        await at.until_ok()
        text = at.deployment.config.read_text().replace('"safe"', '"save"')
        at.deployment.config.write_text(text)
        worker.send_signal(signal.SIGHUP)
        log = at.deployment.directory / "worker-0.log"
        async with asyncio.timeout(120):
            while b"run.not-reloaded" not in log.read_bytes():
                await asyncio.sleep(0.05)
        check = await asyncio.create_subprocess_exec(
            *at.deployment.flipback("config", "check", str(at.deployment.config)), stderr=asyncio.subprocess.PIPE
        )
        _, said = await check.communicate()
        assert (check.returncode, b"save" in said) == (3, True)
        at.traffic.failing = 1.0
        await at.flipped()
        assert at.witness.changes(FLAG) == ["on", "off"]
        assert worker.poll() is None
