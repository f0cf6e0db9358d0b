"""A person halts, rolls back and resumes while an agent runs, on real Kafka: each takes effect and is recorded."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from agent.cli import rollback as cli_rollback
from agent.commands.command import BY_HAND
from agent.config.load import load
from agent.control import rollback
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.heartbeats import heartbeat as heartbeats
from tests.support.worker import Deployment

FLAG = {
    "flag": "bad",
    "service": "shop",
    "triggers": [{"name": "errors", "when": "error_rate > 20% over 10s for 5s", "min_samples": 30, "fast": False}],
}


async def flipback(deployment: Deployment, *arguments: str) -> tuple[int | None, str]:
    """Run a command with the deployment's configuration; returns its exit status and output."""
    given = [*arguments, "-c", str(deployment.config), "--reason", "users cannot pay"]
    child = await asyncio.create_subprocess_exec(
        *deployment.flipback(*given), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await child.communicate()
    return child.returncode, output.decode()


async def events_of(deployment: Deployment, kind: str, count: int = 1) -> list[Event]:
    """Wait until there are `count` events of a type, and return them without repetitions."""
    async with asyncio.timeout(120):
        while True:
            found = {event.id: event for event in await deployment.events() if event.type == kind}
            if len(found) >= count:
                return list(found.values())
            await asyncio.sleep(0.1)


def turn_on(deployment: Deployment) -> None:
    value = json.loads(deployment.flag_file.read_text())
    value["flags"]["bad"]["defaultVariant"] = "on"
    deployment.flag_file.write_text(json.dumps(value))


async def test_a_person_halts_rolls_back_either_way_and_resumes(
    kafka: str,
    topic_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG])
    await deployment.create_topics()
    try:
        await deployment.ready(deployment.start())
        assert (await flipback(deployment, "halt"))[0] == 0
        (halt,) = await events_of(deployment, events.AUTOMATION_HALTED)
        assert halt.data["reason"] == "users cannot pay"

        status, output = await flipback(deployment, "rollback", "bad", "--yes")
        assert (status, deployment.variant("bad")) == (0, "off"), output
        assert "production/bad: read back: 'off' for everyone" in output
        (received,) = await events_of(deployment, events.COMMAND_RECEIVED)
        assert received.data["trigger"] == BY_HAND
        assert received.data["command"]["evidence"]["reason"] == "users cannot pay"

        turn_on(deployment)
        status, output = await flipback(deployment, "rollback", "bad", "--yes", "--direct")
        assert (status, deployment.variant("bad")) == (0, "off"), output
        # The running executor publishes the events of the flip that the other process made.
        verified = await events_of(deployment, events.FLAG_VERIFIED, count=2)
        assert len({event.data["command_id"] for event in verified}) == 2

        for words in ("the flag was safe already", "command refused, duplicate"):
            status, output = await flipback(deployment, "rollback", "bad", "--yes")
            assert status == 0, output
            assert "safe already" in output
            assert words in output

        assert (await flipback(deployment, "resume"))[0] == 0
        (resumed,) = await events_of(deployment, events.AUTOMATION_RESUMED)
        assert resumed.data["halted_because"] == "users cannot pay"
        log = (tmp_path / "worker-0.log").read_text()
        assert '"event.untold"' not in log
        assert '"ledger.failed"' not in log

        deployment.kill(deployment.workers[0])
        monkeypatch.setattr(rollback, "WAIT_S", 1.0)
        monkeypatch.setattr(cli_rollback, "_SHOW_EVERY_S", 0.3)
        config = load(deployment.config)
        assert await cli_rollback._by_kafka(config, config.flags, "nobody is there", "ann", "--direct") == 4
        shown = capsys.readouterr()
        assert "waiting for an executor" in shown.out
        until = r"the order expires at \d\d:\d\d:\d\dZ and is void then"
        assert re.search(f"no executor has answered within 1 s; {until}; use --direct", shown.err)
        # The executor's heartbeats are not old enough yet for it to count as dead.
        assert len(shown.err.splitlines()) == 1
        monkeypatch.setattr(heartbeats, "AWAY_AFTER", 0.0)
        monkeypatch.setattr(rollback, "WAIT_S", 5.0)
        assert await cli_rollback._by_kafka(config, config.flags, "nobody is there", "ann", "--direct") == 4
        first, *_ = capsys.readouterr().err.splitlines()
        assert re.search(f"no executor is alive.*; {until}. Do not wait: use --direct", first)
    finally:
        deployment.close()
