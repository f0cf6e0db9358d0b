"""A fault in traffic on Kafka turns a flag of Firebase off, and an application with Google's client receives that.

The test uses a real Kafka, a real worker, the fakes of the flag systems, and the clients of applications: Firestore's
listener, the Realtime Database's listener, Remote Config's server template. `-s` prints how long each part took.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.events.cloudevents import COMMAND_RECEIVED, FLAG_VERIFIED, FLAG_WRITTEN, Event, trigger_type
from agent.fakes.server import Fake
from tests.support.firebase_apps import APPS, Application
from tests.support.telemetry import Telemetry, telemetry
from tests.support.worker import Deployment

FLAG = "new-checkout"
TRIGGER = {"name": "errors", "when": "error_rate@on > 20% over 5s for 2s", "min_samples": 30, "fast": False}


@asynccontextmanager
async def serving(fake: Fake) -> AsyncIterator[Fake]:
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


async def shop(source: Telemetry, application: Application, broken: threading.Event, stop: asyncio.Event) -> None:
    """Send 100 requests/s; half of the users get the new path while the application's flag is on."""
    while not stop.is_set():
        for user in (0, 1) * 3:
            new = user == 0 and application.on
            status = 500 if new and broken.is_set() else 200
            variant = {FLAG: "on" if new else "off"}
            await source.send(source.sent // 2 % 8, "shop", status=status, flags=variant)
        await asyncio.sleep(0.06)
    await source.flush()


async def until(condition: Callable[[], bool], within: float) -> float:
    """Wait until the condition is true; return that time."""
    async with asyncio.timeout(within):
        while not condition():  # the clients call back in their own threads
            await asyncio.sleep(0.005)
    return time.time()


async def events_with(deployment: Deployment, *kinds: str) -> dict[str, Event]:
    """Wait for an event of each kind; return the first of each."""
    async with asyncio.timeout(120):
        while True:
            found: dict[str, Event] = {}
            for event in await deployment.events():
                found.setdefault(event.type, event)
            if set(kinds) <= set(found):
                return found
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", APPS)
async def test_a_fault_in_traffic_turns_the_flag_off_for_an_application_that_listens(
    kafka: str, topic_prefix: str, tmp_path: Path, kind: str
) -> None:
    made = APPS[kind]
    broken, stop = threading.Event(), asyncio.Event()
    async with serving(made.fake()) as fake:
        fake.put(FLAG, "on")
        backend: dict[str, Any] = {"kind": kind, "emulator": f"127.0.0.1:{fake.port}", **made.settings}
        flag = {"flag": FLAG, "service": "shop", "backend": "firebase", "triggers": [TRIGGER]}
        deployment = Deployment(tmp_path, kafka, topic_prefix, [flag], settings={"backends": {"firebase": backend}})
        await deployment.create_topics()
        application = await asyncio.to_thread(made.application, fake, FLAG)
        try:
            await until(lambda: application.on, 20)
            await deployment.ready(deployment.start())
            async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
                group.create_task(shop(source, application, broken, stop))
                await events_with(deployment, trigger_type("ok"))
                injected = time.time()
                broken.set()
                seen = await until(lambda: not application.on, 60)
                events = await events_with(deployment, FLAG_VERIFIED)
                stop.set()
            assert fake.writes == 1
            firing = events[trigger_type("firing")]
            parts = {
                "fault to firing (evaluation)": firing.time - injected,
                "to command": events[COMMAND_RECEIVED].time - firing.time,
                "to written": events[FLAG_WRITTEN].time - events[COMMAND_RECEIVED].time,
                "to read back": events[FLAG_VERIFIED].time - events[FLAG_WRITTEN].time,
                "written to seen by the client": seen - events[FLAG_WRITTEN].time,
                "in all": seen - injected,
            }
            sys.stdout.write(f"\n{kind}: " + ", ".join(f"{name} {took:.3f} s" for name, took in parts.items()) + "\n")
            assert sum(event.type == FLAG_VERIFIED for event in await deployment.events()) == 1
        finally:
            await application.close()
            deployment.close()
