"""A service under load in which a test can switch on a fault, with exact counts of what was sent.

A witness records every state of the flag file. A test knows its own writes to that file; flipback made all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.events.cloudevents import Event, trigger_type
from tests.support.telemetry import Telemetry, telemetry
from tests.support.worker import Deployment

FLAG, SERVICE = "new", "shop"
TRIGGER = {"name": "errors", "when": "error_rate@on > 20% over 6s for 6s", "min_samples": 30, "fast": False}
ENTRY = {"flag": FLAG, "service": SERVICE, "triggers": [TRIGGER]}
INSTANCES = 10
TICK = 0.05
"""Seconds between two bundles of requests: a Kafka request for each single one would cost more than all else."""


class Witness:
    """Reads a flag file every 10 ms and records each of its states: (time, default variant of each flag)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.states: list[tuple[float, dict[str, str]]] = []

    async def watch(self) -> None:
        seen = None
        while True:
            with contextlib.suppress(OSError, ValueError):
                stat = self._path.stat()
                version = stat.st_ino, stat.st_mtime_ns, stat.st_size
                if version != seen:
                    flags = json.loads(self._path.read_text())["flags"]
                    state = {name: str(flag["defaultVariant"]) for name, flag in flags.items()}
                    if not self.states or self.states[-1][1] != state:
                        self.states.append((time.time(), state))
                    seen = version
            await asyncio.sleep(0.01)

    def changes(self, flag: str) -> list[str]:
        """The variants that a flag had, in order, beginning with the first one."""
        return [variant for variant, _ in itertools.groupby(state[flag] for _, state in self.states if flag in state)]


@dataclass
class Traffic:
    """Requests of both variants from INSTANCES instances, spread over all partitions without keys.

    `failing` is the share of the requests with the variant "on" that fail. `shape` may change a sample's fields, given
    the number of its instance.
    """

    source: Telemetry
    services: Iterable[tuple[str, str]] = ((SERVICE, FLAG),)
    partitions: int = 8
    rate: float = 100.0
    failing: float = 0.0
    shape: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda instance, fields: fields
    _begun: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _over: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _whole: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def begin(self) -> None:
        self._begun.set()

    async def end(self) -> None:
        """Stop sending, and wait until all samples are acknowledged, after which the exact counts are final."""
        self._over.set()
        await self._whole.wait()

    async def run(self) -> None:
        await self._begun.wait()
        begun, sent = time.monotonic(), 0
        while not self._over.is_set():
            due = int((time.monotonic() - begun) * self.rate)
            for number in range(sent, due):
                await self._send(number)
            sent = due
            await asyncio.sleep(TICK)
        await self.source.flush()
        self._whole.set()

    async def _send(self, number: int) -> None:
        for service, flag in self.services:
            variant = "on" if number % 2 else "off"
            # Spread the failures evenly over the variant's requests, so that each second has the same share.
            fails = variant == "on" and (number // 2 * 7919) % 100 < 100 * self.failing
            instance = number // 2 % INSTANCES
            fields = {"status": 500 if fails else 200, "flags": {flag: variant}, "instance": f"i-{instance}"}
            await self.source.send(number % self.partitions, service, **self.shape(instance, fields))


@dataclass
class Scene:
    """A deployment, its traffic, and the witness of its flag file."""

    deployment: Deployment
    traffic: Traffic
    witness: Witness

    async def until_ok(self, within: float = 120) -> None:
        """Wait until a trigger is ok."""
        await self.event_of(trigger_type("ok"), within)

    async def event_of(self, kind: str, within: float = 120) -> Event:
        """Wait for an event of this type in the audit log, and return it."""
        return await self.event_where(lambda event: event.type == kind, within)

    async def event_where(self, wanted: Callable[[Event], bool], within: float = 120) -> Event:
        """Wait for an event of which `wanted` is true in the audit log, and return it."""
        async with asyncio.timeout(within):
            while True:
                for event in await self.deployment.events():
                    if wanted(event):
                        return event
                await asyncio.sleep(0.2)

    async def flipped(self, flag: str = FLAG, within: float = 120) -> None:
        """Wait until the witness has seen the flag turned off."""
        async with asyncio.timeout(within):
            while self.witness.changes(flag)[-1:] != ["off"]:
                await asyncio.sleep(0.02)

    async def inabilities(self) -> list[Event]:
        """The events of inabilities, without those of their ends."""
        return [
            event
            for event in await self.deployment.events()
            if event.type == "flipback.inability" and event.data.get("state") != "ended"
        ]


@contextlib.asynccontextmanager
async def scene(
    directory: Path,
    kafka: str,
    prefix: str,
    entries: Iterable[dict[str, Any]] = (ENTRY,),
    *,
    replication: int = 1,
    quiet: bool = False,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """A deployment with its topics, traffic without failures, and the witness; no worker is started.

    If `quiet`, the traffic starts with `traffic.begin()`.
    """
    entries = list(entries)
    deployment = Deployment(directory, kafka, prefix, entries, settings=settings, replication=replication)
    await deployment.create_topics()
    services = [(entry["service"], entry["flag"]) for entry in entries]
    witness = Witness(deployment.flag_file)
    try:
        async with telemetry(kafka, deployment.telemetry) as source:
            traffic = Traffic(source, services, deployment.partitions)
            if not quiet:
                traffic.begin()
            tasks = [asyncio.create_task(traffic.run()), asyncio.create_task(witness.watch())]
            try:
                yield Scene(deployment, traffic, witness)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for task in tasks:
                    if not task.cancelled() and task.exception() is not None:
                        raise RuntimeError("the traffic or the witness of a scene failed") from task.exception()
    finally:
        deployment.close()
