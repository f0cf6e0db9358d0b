"""A broker that accepts connections and does not answer: every role reports it, and a worker still ends on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.support.kafka import KafkaNode
from tests.support.worker import Deployment

FLAG = {
    "flag": "bad",
    "service": "cart",
    "triggers": [{"name": "errors", "when": "error_rate@on > 20% over 6s for 6s", "min_samples": 30, "fast": False}],
}


def lines(deployment: Deployment, number: int) -> list[dict[str, object]]:
    text = (deployment.directory / f"worker-{number}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def handles_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM, without which the signal would kill it."""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) & 1 << signal.SIGTERM - 1)


async def unready(session: aiohttp.ClientSession, url: str) -> dict[str, str]:
    """Wait until the worker is not ready because no broker answers; returns the detail of each role."""
    async with asyncio.timeout(120):
        while True:
            async with session.get(f"{url}/readyz") as answer:
                roles = (await answer.json())["roles"]
                said = {name: str(role["detail"]) for name, role in roles.items()}
                if answer.status == 503 and all("no answer from the brokers for" in detail for detail in said.values()):
                    return said
            await asyncio.sleep(0.2)


async def both_ready(session: aiohttp.ClientSession, urls: list[str]) -> None:
    """Wait until both workers answer that they are ready."""
    async with asyncio.timeout(120):
        for url in urls:
            while (await session.get(f"{url}/readyz")).status != 200:
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("after", ["frozen", "thawed", "killed"])
async def test_a_worker_without_a_broker_is_not_ready_and_ends_on_sigterm(
    kafka_node: KafkaNode, topic_prefix: str, tmp_path: Path, after: str
) -> None:
    deployment = Deployment(tmp_path, kafka_node.bootstrap, topic_prefix, [FLAG])
    await deployment.create_topics()
    try:
        workers = [deployment.start()]
        await deployment.ready(workers[0])
        # The commands topic has one partition, so this executor is a standby.
        workers.append(deployment.start("--roles", "executor"))
        await deployment.ready(workers[1])
        urls = [next(str(row["health"]) for row in lines(deployment, n) if row["event"] == "run.ready") for n in (0, 1)]
        async with aiohttp.ClientSession() as session:
            await both_ready(session, urls)
            kafka_node.freeze()
            assert set(await unready(session, urls[0])) == {"ingest", "monitor", "executor"}
            assert set(await unready(session, urls[1])) == {"executor"}
            if after == "thawed":
                kafka_node.thaw()
                await both_ready(session, urls)
            if after == "killed":
                kafka_node.kill()
        for worker in workers:
            worker.terminate()
        async with asyncio.timeout(120):
            while any(worker.poll() is None for worker in workers):
                await asyncio.sleep(0.05)
        assert [worker.returncode for worker in workers] == [0, 0]
        for number in (0, 1):
            assert {"run.stopped", "run.cut-short"} & {row["event"] for row in lines(deployment, number)}
    finally:
        deployment.close()


async def test_a_worker_that_never_got_beyond_its_start_ends_on_sigterm(
    kafka_node: KafkaNode, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka_node.bootstrap, topic_prefix, [FLAG])
    kafka_node.freeze()
    try:
        worker = deployment.start()
        async with asyncio.timeout(120):
            while not handles_sigterm(worker.pid):
                assert worker.poll() is None
                await asyncio.sleep(0.05)
        worker.terminate()
        async with asyncio.timeout(120):
            while worker.poll() is None:
                await asyncio.sleep(0.05)
        assert worker.returncode == 0
    finally:
        deployment.close()
