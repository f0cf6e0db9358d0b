"""Runs `flipback run` as a separate process, with a configuration made for a measurement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.bench.program import program
from agent.bench.systems import flagd_file
from agent.demo.children import Child, start, stop
from agent.errors import FlipbackError
from streams.bench.load import PARTIALS_PARTITIONS, BenchTopics
from streams.settings import Format

MAX_LATENESS = 2.0
"""Seconds; flipback's default."""

_POLL = 0.01
_READY_TIMEOUT = 60.0
_READY = "run.ready"


@dataclass(frozen=True, slots=True)
class Watched:
    """A flag, its service and its triggers, each `METRIC[@variant] OP VALUE [over WINDOW] [for DURATION]`."""

    flag: str
    service: str
    triggers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Running:
    """The process, and the Unix times at which it was started and at which every role read its topics (`ready_at`)."""

    child: Child
    started_at: float
    ready_at: float

    @property
    def pid(self) -> int:
        return self.child.process.pid


def configure(
    directory: Path,
    topics: BenchTopics,
    watched: Sequence[Watched],
    *,
    form: Format = "json",
    backend: dict[str, Any] | None = None,
) -> Path:
    """Write a configuration and return its path. Without a backend, also write a flagd file with every flag on."""
    if backend is None:
        backend = flagd_file([each.flag for each in watched], directory)
    config: dict[str, Any] = {
        "apiVersion": "flipback/v1",
        "kafka": {
            "brokers": topics.kafka.split(","),
            "prefix": topics.prefix,
            "partials_partitions": PARTIALS_PARTITIONS,
            "security": {"allow_plaintext": True},
        },
        "telemetry": [{"topic": topics.telemetry, "format": form}],
        "backends": {"flags": backend},
        "max_scopes": max(2000, 3 * len(watched)),
        "state_dir": "state",
        # Limits that allow all flags to be turned back.
        "automation": {"max_flips": max(1, len(watched)), "max_share": 1.0},
        "web": {"port": 0},
        "flags": [
            {
                "flag": each.flag,
                "service": each.service,
                "backend": "flags",
                "safe": "off",
                # Fixed min_samples and no fast tier, so that neither changes when the trigger fires.
                "triggers": [
                    {"name": f"t{n}", "when": when, "min_samples": 30, "fast": False}
                    for n, when in enumerate(each.triggers)
                ],
            }
            for each in watched
        ],
    }
    path = directory / "flipback.yaml"
    # Every JSON document is also YAML.
    path.write_bytes(msgspec.json.encode(config))
    return path


@asynccontextmanager
async def flipback(config: Path) -> AsyncIterator[Running]:
    """Run `flipback run` with every role. The block begins when it is ready; the process ends after the block."""
    started_at = time.time()
    child = await start("flipback", [*program(), "run", "-c", str(config), "--log-json"], config.parent)
    try:
        yield Running(child, started_at, await logged(child, _READY, within=_READY_TIMEOUT))
    finally:
        await stop(child)


async def logged(child: Child, event: str, within: float) -> float:
    """When the process first logged an event, in Unix seconds. Raises FlipbackError if it does not come `within`."""
    needle = f'"event":"{event}"'.encode()
    try:
        async with asyncio.timeout(within):
            while True:
                for line in child.log.read_bytes().splitlines():
                    if needle in line:
                        return datetime.fromisoformat(msgspec.json.decode(line)["time"]).timestamp()
                child.check()
                await asyncio.sleep(_POLL)
    except TimeoutError:
        tail = child.log.read_text(errors="replace")[-1500:]
        raise FlipbackError(
            f"bench: flipback logged no {event} within {within:.0f} s; its log ends with:\n{tail}"
        ) from None
