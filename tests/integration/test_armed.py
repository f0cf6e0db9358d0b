"""ARMED or NOT ARMED on real Kafka: `status`, `doctor` and `/readyz` say the same of what a flip would come to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.telemetry import telemetry
from tests.worker import Deployment

FLAG = {
    "flag": "bad",
    "service": "cart",
    "triggers": [{"name": "errors", "when": "error_rate@on > 20% over 6s for 4s", "min_samples": 30, "fast": False}],
}


@contextlib.asynccontextmanager
async def traffic(deployment: Deployment) -> AsyncIterator[None]:
    """Healthy requests to all partitions, 50 a second."""
    async with telemetry(deployment.kafka, deployment.telemetry) as source:

        async def send() -> None:
            while True:
                for variant in ("on", "off"):
                    await source.send(source.sent // 2 % 8, "cart", status=200, flags={"bad": variant})
                await asyncio.sleep(0.04)

        task = asyncio.create_task(send())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def called(deployment: Deployment, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a `flipback` command."""
    process = await asyncio.create_subprocess_exec(
        *deployment.flipback(*arguments, "-c", str(deployment.config)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode() + err.decode()


async def status(deployment: Deployment) -> tuple[int, dict[str, Any]]:
    code, out = await called(deployment, "status", "--json")
    return code, json.loads(out)


async def until(deployment: Deployment, found: Callable[[dict[str, Any]], bool], within: float = 90) -> dict[str, Any]:
    """What `status` says, once it is as wanted."""
    body: dict[str, Any] = {}
    try:
        async with asyncio.timeout(within):
            while True:
                code, body = await status(deployment)
                assert code == (0 if body["armed"] else 1)
                if found(body):
                    return body
    except TimeoutError:
        raise AssertionError(f"status still says {body.get('obstacles')}") from None


def whats(body: dict[str, Any]) -> set[str]:
    return {obstacle["what"] for obstacle in body["obstacles"]}


def address(deployment: Deployment, number: int) -> str:
    """Where a worker's health server listens."""
    log = (deployment.directory / f"worker-{number}.log").read_bytes().splitlines()
    (said,) = [line for line in map(json.loads, log) if line["event"] == "health.listening"]
    return str(said["url"])


async def readyz(deployment: Deployment, number: int = 0) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{address(deployment, number)}/readyz") as answer:
        return answer.status, await answer.json()


async def ready(deployment: Deployment, wanted: int, number: int = 0, within: float = 60) -> dict[str, Any]:
    """What `/readyz` says, once it answers with this status."""
    code, body = 0, dict[str, Any]()
    try:
        async with asyncio.timeout(within):
            while code != wanted:
                code, body = await readyz(deployment, number)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"/readyz still answers {code}: {body}") from None
    return body


async def test_a_deployment_in_which_all_is_well_is_armed_and_a_halt_disarms_it(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG])
    await deployment.create_topics()
    try:
        assert whats((await status(deployment))[1]) >= {"process"}
        await deployment.ready(deployment.start())
        async with traffic(deployment):
            await until(deployment, lambda body: body["armed"])
            code, out = await called(deployment, "status")
            assert (code, out.splitlines()[0]) == (0, "ARMED")
            code, out = await called(deployment, "doctor")
            assert (code, out.splitlines()[-1]) == (0, "ARMED"), out
            assert (await ready(deployment, 200))["armed"]

            assert (await called(deployment, "halt", "--reason", "the database"))[0] == 0
            code, out = await called(deployment, "status")
            assert code == 1
            assert out.startswith("NOT ARMED: automation: the automation was halted")
            assert "the database" in out.splitlines()[0]
            code, out = await called(deployment, "doctor")
            assert code == 4
            assert out.splitlines()[-1].startswith("NOT ARMED: automation")
            assert "automation" in whats(await ready(deployment, 503))

            assert (await called(deployment, "resume", "--reason", "it is back"))[0] == 0
            await until(deployment, lambda body: body["armed"])
            await ready(deployment, 200)

            flags = deployment.flag_file.read_text()
            deployment.flag_file.unlink()
            body = await until(deployment, lambda body: not body["armed"])
            assert "executor" in whats(body)
            assert "executor" in whats(await ready(deployment, 503))
            deployment.flag_file.write_text(flags)
            await until(deployment, lambda body: body["armed"])
    finally:
        deployment.close()
