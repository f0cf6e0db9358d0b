"""Commands and people on real Kafka: only a genuine, fresh command flips a flag, and edits by people are kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.commands.command import Command, Evidence, Reason, sign
from agent.commands.keys import PrivateKey, load_private
from agent.events.cloudevents import (
    COMMAND_RECEIVED,
    COMMAND_REJECTED,
    FLAG_CONFLICT,
    FLAG_VERIFIED,
    Event,
    trigger_type,
)
from agent.state.flags import FlagStatus
from streams.kafka.reader import read_to_end
from tests.chaos.scene import ENTRY, FLAG, SERVICE, Scene, scene
from tests.support.commands import issued
from tests.support.worker import Deployment

EVIDENCE = Evidence(
    metric="error_rate",
    scope=f"production/{SERVICE}/{FLAG}@on",
    window=(0.0, 1.0),
    op=">",
    threshold=0.2,
    value=1.0,
    samples=100,
    counts={"requests": 100, "errors": 100},
    sources=1,
    age_s=2.0,
    first_true_at=0.0,
    fired_at=1.0,
)


async def eventually(deployment: Deployment, found: Callable[[list[Event]], Any], within: float = 120) -> list[Event]:
    """Read the events until `found` is true of them, and return them."""
    async with asyncio.timeout(within):
        while not found(events := await deployment.events()):
            await asyncio.sleep(0.1)
    return events


async def status_of(deployment: Deployment, known: Callable[[FlagStatus], bool] = lambda status: True) -> FlagStatus:
    """Read the flag's newest published state until `known` is true of it, and return it."""
    async with asyncio.timeout(120):
        while True:
            records = await read_to_end(deployment.topics.flags, deployment.client)
            states = [msgspec.json.decode(record.value or b"", type=FlagStatus) for record in records]
            if states and known(states[-1]):
                return states[-1]
            await asyncio.sleep(0.1)


def command(version: str, *, issued_at: float | None = None, **changes: Any) -> Command:
    fields: dict[str, Any] = {
        "flag": FLAG,
        "environment": "production",
        "service": SERVICE,
        "backend": "files",
        "target": "off",
        "trigger": "errors",
        "flag_version": version,
        **changes,
    }
    at = time.time() if issued_at is None else issued_at
    return issued(issued_at=at, rules_hash="r", evidence=EVIDENCE, **fields)


async def write_commands(deployment: Deployment, *values: bytes) -> None:
    """Write records to the commands topic, as any client of the brokers could."""
    async with AIOKafkaProducer(bootstrap_servers=deployment.kafka) as producer:
        for value in values:
            await producer.send_and_wait(deployment.topics.commands, value, partition=0)


def reasons(events: list[Event]) -> list[str]:
    """The reasons of rejections in order; an event that was published twice counts once."""
    return [str(e.data["reason"]) for e in {e.id: e for e in events if e.type == COMMAND_REJECTED}.values()]


async def test_commands_that_are_not_true_fresh_and_allowed_do_nothing_and_are_audited(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        deployment = at.deployment
        worker = deployment.start()
        await deployment.ready(worker)
        before = deployment.flag_file.read_bytes()
        version = (await status_of(deployment)).version
        key = load_private(tmp_path / ".flipback" / "flipback.key")
        stranger = PrivateKey(Ed25519PrivateKey.generate())
        good = sign(command(version), key)
        now = time.time()
        wrong = {
            Reason.MALFORMED: b"flip everything",
            Reason.OVERSIZED: good + b" " * (64 << 10),
            Reason.UNKNOWN_KEY: sign(command(version), stranger),
            # Change the target, which the signature covers.
            Reason.BAD_SIGNATURE: good.replace(b'"off"', b'"onn"'),
            Reason.WRONG_ID: sign(msgspec.structs.replace(command(version), id="another"), key),
            Reason.UNKNOWN_FLAG: sign(command(version, flag="untouched"), key),
            Reason.WRONG_SERVICE: sign(command(version, service="another"), key),
            Reason.WRONG_BACKEND: sign(command(version, backend="other"), key),
            Reason.WRONG_STATE: sign(command(version, target="on"), key),
            Reason.EXPIRED: sign(command(version, issued_at=now - 61, trigger="old"), key),
            Reason.FROM_THE_FUTURE: sign(command(version, issued_at=now + 600, trigger="new"), key),
        }
        await write_commands(deployment, *wrong.values())
        events = await eventually(deployment, lambda events: len(reasons(events)) >= len(wrong))
        # Four commands are processed concurrently, so the order is not fixed.
        assert sorted(reasons(events)) == sorted(wrong)
        await write_commands(deployment, sign(command("g7-another", trigger="other"), key))
        await at.event_of(FLAG_CONFLICT)
        assert deployment.flag_file.read_bytes() == before

        # The genuine command changes its flag and no other byte of the file.
        await write_commands(deployment, good)
        await at.flipped()
        flipped = deployment.flag_file.read_bytes()
        assert flipped == before.replace(b'"defaultVariant": "on"', b'"defaultVariant": "off"', 1)
        await at.event_of(FLAG_VERIFIED)

        # A person turns the flag on again. Neither the same command nor a new one during the cooldown turns it off.
        deployment.flag_file.write_bytes(before)
        changed = await status_of(deployment, lambda status: not status.safe and status.version != version)
        await write_commands(deployment, good, sign(command(changed.version), key))
        events = await eventually(deployment, lambda events: len(reasons(events)) >= len(wrong) + 2)
        assert sorted(reasons(events)[len(wrong) :]) == sorted([Reason.COOLDOWN, Reason.DUPLICATE])
        assert deployment.flag_file.read_bytes() == before
        assert len({event.id for event in events if event.type == FLAG_VERIFIED}) == 1
        assert worker.poll() is None


async def test_a_flag_that_a_person_edited_after_it_was_judged_is_left_as_it_is(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka, topic_prefix) as at:
        deployment = at.deployment
        keys = await asyncio.create_subprocess_exec(
            *deployment.flipback("keys", "generate", "--dir", str(tmp_path / ".flipback"))
        )
        assert await keys.wait() == 0
        judge = deployment.start("--roles", "ingest,monitor")
        executor = deployment.start("--roles", "executor")
        await deployment.ready(judge)
        await deployment.ready(executor)
        judged = await status_of(deployment)
        executor.terminate()
        assert await asyncio.to_thread(executor.wait, 10) == 0
        at.traffic.failing = 1.0
        await at.event_of(trigger_type("firing"))
        async with asyncio.timeout(120):
            while not await read_to_end(deployment.topics.commands, deployment.client):
                await asyncio.sleep(0.1)
        # A person edits the flag, and keeps it on, before the executor starts again.
        edited = deployment.flag_file.read_bytes().replace(
            b'"defaultVariant": "on"', b'"defaultVariant": "on", "metadata": {"keep": true}', 1
        )
        deployment.flag_file.write_bytes(edited)
        at.traffic.failing = 0.0
        await deployment.ready(deployment.start("--roles", "executor"))
        events = await eventually(deployment, lambda events: any(e.type == FLAG_CONFLICT for e in events))
        (conflict,) = {event.id: event for event in events if event.type == FLAG_CONFLICT}.values()
        assert conflict.data["expected"] == judged.version
        assert deployment.flag_file.read_bytes() == edited


async def _turned_on_again(at: Scene) -> FlagStatus:
    """Cause a fault that turns the flag back, end it, and restore the flag file as a person would."""
    before = at.deployment.flag_file.read_bytes()
    await at.deployment.ready(at.deployment.start())
    await at.until_ok()
    at.traffic.failing = 1.0
    await at.event_of(FLAG_VERIFIED)
    at.traffic.failing = 0.0
    at.deployment.flag_file.write_bytes(before)
    return await status_of(at.deployment, lambda state: not state.safe and state.changed_at is not None)


async def test_a_flag_turned_on_again_after_a_rollback_is_judged_by_what_came_since(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    # The window of 30 s contains the old errors long after the flag is on again.
    trigger = {"name": "errors", "when": "error_rate@on > 20% over 30s for 4s", "min_samples": 30, "fast": False}
    async with scene(
        tmp_path, kafka, topic_prefix, [{**ENTRY, "triggers": [trigger]}], command={"cooldown": "1s"}
    ) as at:
        deployment = at.deployment
        again = await _turned_on_again(at)
        assert again.changed_at is not None
        # Wait longer than the hold and than the seconds that count as fresh. Most of the time the trigger fires on
        # the old errors.
        await _judged(deployment, again.changed_at + 20)
        assert deployment.variant(FLAG) == "on"
        frames = [frame for frame in await deployment.health() if frame.triggers]
        on_old = [f.time for f in frames if f.time > again.changed_at + 5 and f.triggers[0].state == "firing"]
        assert on_old, "the old window did not fire: nothing was tested"
        at.traffic.failing = 1.0
        await at.flipped()
        events = await eventually(
            deployment, lambda events: len({e.id for e in events if e.type == FLAG_VERIFIED}) == 2
        )
        commands = {e.id: e.data["command"] for e in events if e.type == COMMAND_RECEIVED}.values()
        assert [c["flag_version"] == again.version for c in commands] == [False, True]


async def test_the_fast_tier_commands_long_before_the_hold_and_on_nothing_before_the_flag_changed(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    trigger = {"name": "errors", "when": "error_rate@on > 20% over 60s for 1h"}
    async with scene(
        tmp_path, kafka, topic_prefix, [{**ENTRY, "triggers": [trigger]}], command={"cooldown": "1s"}
    ) as at:
        deployment = at.deployment
        again = await _turned_on_again(at)
        assert again.changed_at is not None
        await _judged(deployment, again.changed_at + 8)
        assert deployment.variant(FLAG) == "on"
        at.traffic.failing = 1.0
        await at.flipped()
        events = await eventually(
            deployment, lambda events: len({e.id for e in events if e.type == FLAG_VERIFIED}) == 2
        )
        received = {e.id: e.data["command"] for e in events if e.type == COMMAND_RECEIVED}.values()
        first, second = sorted(received, key=lambda c: float(c["issued_at"]))
        assert [c["evidence"]["tier"] for c in (first, second)] == ["fast", "fast"]
        assert second["flag_version"] == again.version
        assert second["evidence"]["since"] >= again.changed_at
        assert second["evidence"]["evidence"] >= second["evidence"]["bound"]


async def _judged(deployment: Deployment, until: float) -> None:
    async with asyncio.timeout(120):
        while max((f.time for f in await deployment.health() if f.triggers), default=0) < until:
            await asyncio.sleep(0.3)
