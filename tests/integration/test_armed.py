"""ARMED or NOT ARMED on real Kafka: `status`, `doctor` and `/readyz` agree whether a flip would happen now."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer

from agent.events.cloudevents import INABILITY
from tests.chaos.scene import ENTRY, FLAG, scene
from tests.support.worker import Deployment


async def called(deployment: Deployment, *arguments: str) -> tuple[int, str]:
    """Run a `flipback` command; returns its exit status and output."""
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
    """Call `status` until `found` is true of its output, and return that."""
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
    """The URL of a worker's health server."""
    log = (deployment.directory / f"worker-{number}.log").read_bytes().splitlines()
    (said,) = [line for line in map(json.loads, log) if line["event"] == "health.listening"]
    return str(said["url"])


async def readyz(deployment: Deployment, number: int = 0) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{address(deployment, number)}/readyz") as answer:
        return answer.status, await answer.json()


async def probed(
    deployment: Deployment, wanted: int, naming: str | None = None, number: int = 0, within: float = 120
) -> dict[str, Any]:
    """Request `/readyz` until it answers with the status `wanted` and the obstacle `naming`; returns the answer."""
    code, body = 0, dict[str, Any](obstacles=[])
    try:
        async with asyncio.timeout(within):
            while code != wanted or (naming is not None and naming not in whats(body)):
                code, body = await readyz(deployment, number)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"/readyz still answers {code}: {body}") from None
    return body


async def test_a_deployment_in_which_all_is_well_is_armed_and_a_halt_disarms_it(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        deployment = at.deployment
        assert whats((await status(deployment))[1]) >= {"process"}
        await deployment.ready(deployment.start())
        await probed(deployment, 200)
        await until(deployment, lambda body: body["armed"])
        code, out = await called(deployment, "status")
        assert (code, out.splitlines()[0]) == (0, "ARMED")
        code, out = await called(deployment, "doctor")
        assert (code, out.splitlines()[-1]) == (0, "ARMED"), out
        assert (await probed(deployment, 200))["armed"]

        assert (await called(deployment, "halt", "--reason", "the database"))[0] == 0
        code, out = await called(deployment, "status")
        assert code == 1
        # Both this command and the executor's heartbeat report the halt; the first line is that of either.
        halted = r"NOT ARMED: automation: (\S+ \(pid \d+\): )?the automation was halted by \S+: the database"
        assert re.match(halted, out)
        assert "the database" in out.splitlines()[0]
        code, out = await called(deployment, "doctor")
        assert code == 4
        assert out.splitlines()[-1].startswith("NOT ARMED: automation")
        await probed(deployment, 503, "automation")

        assert (await called(deployment, "resume", "--reason", "it is back"))[0] == 0
        await probed(deployment, 200)
        await until(deployment, lambda body: body["armed"])

        flags = deployment.flag_file.read_text()
        deployment.flag_file.unlink()
        await probed(deployment, 503, "executor")
        body = await until(deployment, lambda body: not body["armed"])
        assert "executor" in whats(body)
        deployment.flag_file.write_text(flags)
        await probed(deployment, 200)
        await until(deployment, lambda body: body["armed"])


def twin(deployment: Deployment, name: str, **settings: Any) -> Deployment:
    """The same configuration in another directory, with the same flag file."""
    directory = deployment.directory / name
    directory.mkdir()
    backends = {"files": {"kind": "flagd-file", "path": str(deployment.flag_file)}}
    return Deployment(
        directory,
        deployment.kafka,
        deployment.prefix,
        deployment.flags,
        settings={"backends": backends, **settings},
    )


async def ended(worker: subprocess.Popen[bytes]) -> int:
    async with asyncio.timeout(120):
        while (code := worker.poll()) is None:
            await asyncio.sleep(0.1)
    return code


async def test_a_second_replica_makes_no_keys_of_its_own_and_with_the_same_keys_it_fits(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        first = at.deployment
        with closing(twin(first, "second")) as second:
            await first.ready(first.start())
            await probed(first, 200)
            refused = second.start()
            assert await ended(refused) == 3
            said = (second.directory / "worker-0.log").read_text()
            assert "Replicas need the same keys" in said
            assert not (second.directory / ".flipback" / "flipback.key").exists()

            made = tmp_path / ".flipback"
            keys = {"signing_key": str(made / "flipback.key"), "public_keys": [str(made / "flipback.pub")]}
            with closing(twin(first, "third", keys=keys)) as third:
                await third.ready(third.start())
                await probed(first, 200)
                body = await until(first, lambda body: body["armed"])
                assert len([process for process in body["processes"] if process["alive"]]) == 2
                for deployment in (first, third):
                    await probed(deployment, 200)
                    code, body = await status(deployment)
                    assert code == 0
                    # The two deployments have different state directories.
                    assert "separate ledgers" in body["notes"][0]


async def _own_keys(deployment: Deployment) -> None:
    generated = deployment.flipback("keys", "generate", "--dir", str(deployment.directory / ".flipback"))
    assert await asyncio.to_thread(subprocess.call, generated) == 0


async def test_keys_that_do_not_fit_are_announced_before_any_incident_and_nobody_is_ready(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        first = at.deployment
        with closing(twin(first, "second")) as second:
            # Each has made its own keys, as two processes do that start at the same moment.
            for deployment in (first, second):
                await _own_keys(deployment)
            await first.ready(first.start())
            await second.ready(second.start())
            for deployment in (first, second):
                await probed(deployment, 503, "keys")
                body = await until(deployment, lambda body: "keys" in whats(body))
                assert not body["armed"]
                code, out = await called(deployment, "doctor")
                assert code == 1
                assert "NOT ARMED: keys" in out
            await at.event_where(lambda event: event.subject == "keys")
            (announcement,) = [event for event in await first.events() if event.subject == "keys"]
            assert (announcement.type, announcement.data["state"]) == (INABILITY, "begun")
            assert "give all processes the same keys" in announcement.data["reason"]


async def test_a_command_that_the_executor_refuses_stands_in_its_incident(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        first = at.deployment
        with closing(twin(first, "second")) as second:
            for deployment in (first, second):
                await _own_keys(deployment)
            await second.ready(second.start("--roles", "executor"))
            await first.ready(first.start("--roles", "ingest,monitor"))
            at.traffic.failing = 1.0
            async with asyncio.timeout(90):
                while "NOT TURNED BACK" not in (said := (await called(first, "status"))[1]):
                    await asyncio.sleep(0.5)
            (line,) = [line for line in said.splitlines() if "NOT TURNED BACK" in line]
            assert f"production/{FLAG}/errors  NOT TURNED BACK, rejected unknown-key: signed with key" in line
            incident = line.split()[-1]
            for what in (incident, FLAG):
                code, said = await called(first, "explain", what)
                assert (code, "unknown-key" in said) == (0, True), said


async def test_another_team_on_the_same_prefix_is_seen_by_both(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        first = at.deployment
        (tmp_path / "others").mkdir()
        theirs = Deployment(
            tmp_path / "others",
            kafka,
            topic_prefix,
            [{**ENTRY, "flag": "theirs"}],
            settings={"state_dir": "../.flipback"},
        )
        with closing(theirs) as other:
            await first.ready(first.start())
            await probed(first, 200)
            await other.ready(other.start())
            for deployment in (first, other):
                body = await probed(deployment, 503, "configuration")
                assert any("no flag in common" in obstacle["why"] for obstacle in body["obstacles"])
                await until(deployment, lambda body: "configuration" in whats(body))
            await at.event_where(lambda event: event.subject == "configuration")


async def test_an_executor_that_is_killed_is_missed_by_the_monitors_before_any_incident(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    keys = {"signing_key": "keys/flipback.key", "public_keys": ["keys/flipback.pub"]}
    async with scene(tmp_path, kafka, topic_prefix, keys=keys) as at:
        deployment = at.deployment
        generated = deployment.flipback("keys", "generate", "--dir", str(tmp_path / "keys"))
        assert await asyncio.to_thread(subprocess.call, generated) == 0
        await deployment.ready(deployment.start("--roles", "ingest,monitor"))
        await probed(deployment, 503, "executor")
        executor = deployment.start("--roles", "executor")
        await deployment.ready(executor)
        await probed(deployment, 200)
        await until(deployment, lambda body: body["armed"])
        deployment.kill(executor)
        await probed(deployment, 503, "executor")
        body = await until(deployment, lambda body: "executor" in whats(body), within=120)
        (reason,) = [obstacle["why"] for obstacle in body["obstacles"] if obstacle["what"] == "executor"]
        assert "no executor is alive" in reason
        announcement = await at.event_where(lambda event: event.subject == "executor")
        assert "rollback --direct" in announcement.data["reason"]
        await deployment.ready(deployment.start("--roles", "executor"))
        await probed(deployment, 200)
        await until(deployment, lambda body: body["armed"])
        async with asyncio.timeout(120):
            while [e.data["state"] for e in await deployment.events() if e.subject == "executor"] != [
                "begun",
                "ended",
            ]:
                await asyncio.sleep(0.2)


async def test_in_shadow_mode_it_is_ready_and_not_armed(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    async with scene(tmp_path, kafka, topic_prefix, mode="shadow") as at:
        deployment = at.deployment
        await deployment.ready(deployment.start())
        await probed(deployment, 200, "shadow")
        body = await until(deployment, lambda body: whats(body) == {"shadow"})
        assert not body["armed"]
        assert not (await probed(deployment, 200))["armed"]
        code, out = await called(deployment, "doctor")
        assert code == 1
        assert "BAD  shadow: mode: shadow" in out
        assert out.splitlines()[-1].startswith("NOT ARMED: shadow: see BAD above")


async def test_rejected_telemetry_disarms_with_the_reason_and_an_example(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [ENTRY])
    await deployment.create_topics()
    try:
        await deployment.ready(deployment.start())
        producer = AIOKafkaProducer(bootstrap_servers=kafka)
        await producer.start()
        try:
            for number in range(100):
                value = b'{"ts": "yesterday", "service": "cart"}'
                await producer.send_and_wait(deployment.telemetry, value, partition=number % 8)
        finally:
            await producer.stop()
        body = await until(deployment, lambda body: any("100 of 100" in o["why"] for o in body["obstacles"]), 60)
        (why,) = [o["why"] for o in body["obstacles"] if "100 of 100" in o["why"]]
        assert "yesterday" in why
        await probed(deployment, 503)
    finally:
        deployment.close()
