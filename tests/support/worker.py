"""Workers of `flipback run` in separate processes, and their files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.events.cloudevents import Event, from_kafka
from streams.kafka.reader import read_to_end
from streams.kafka.topics import Topics, TopicSpec, create
from streams.monitor.health import Health
from streams.monitor.health import decoder as health_decoder

_DAY_MS = 86_400_000
_COMMAND = [sys.executable, "-c", "from agent.cli import main; main()"]


def flagd_flags(*names: str) -> str:
    flags = {n: {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"} for n in names}
    return json.dumps({"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": flags}, indent=2)


@dataclass
class Deployment:
    """A configuration with its files in `directory`, for the brokers at `kafka`, and the workers started with it.

    `flags` are the flag entries of the configuration as JSON values; in flags.json each flag is on at first.
    """

    directory: Path
    kafka: str
    prefix: str
    flags: Sequence[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    partitions: int = 8
    session_timeout: str = "2s"
    replication: int = 1
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefix = self.prefix.rstrip(".")
        self.flag_file.write_text(flagd_flags(*dict.fromkeys(flag["flag"] for flag in self.flags), "untouched"))
        config = {
            "apiVersion": "flipback/v1",
            "kafka": {
                "brokers": self.kafka.split(","),
                "prefix": self.prefix,
                "session_timeout": self.session_timeout,
                "partials_partitions": 4,
            },
            "telemetry": [{"topic": self.telemetry, "format": "json"}],
            "backends": {"files": {"kind": "flagd-file", "path": "flags.json"}},
            "flags": [{"backend": "files", "safe": "off", **flag} for flag in self.flags],
            "web": {"port": 0},
            # Limits that allow all flags of a test at once; other tests check the limits.
            "automation": {"max_flips": 1000, "max_share": 1},
            **self.settings,
        }
        # Every JSON document is also YAML.
        self.config.write_text(json.dumps(config))

    @property
    def config(self) -> Path:
        return self.directory / "flipback.yaml"

    @property
    def flag_file(self) -> Path:
        return self.directory / "flags.json"

    @property
    def telemetry(self) -> str:
        return f"{self.prefix}-requests"

    @property
    def topics(self) -> Topics:
        return Topics(self.prefix)

    @property
    def client(self) -> dict[str, Any]:
        return {"bootstrap_servers": self.kafka.split(",")}

    async def create_topics(self) -> None:
        specs = [*self.topics.specs(4, 600), TopicSpec(self.telemetry, self.partitions, _DAY_MS, "samples")]
        await create(specs, replication=self.replication, connection=self.client)

    def start(self, *options: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker, with `environment` added to this process's own; its log is worker-N.log."""
        with (self.directory / f"worker-{len(self.workers)}.log").open("ab") as log:
            worker = subprocess.Popen(
                [*_COMMAND, "run", "-c", str(self.config), "--log-json", *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )
        self.workers.append(worker)
        return worker

    def flipback(self, *arguments: str) -> list[str]:
        """The command line of another `flipback` command."""
        return [*_COMMAND, *arguments]

    async def ready(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until the worker has logged that every role reads."""
        log = self.directory / f"worker-{self.workers.index(worker)}.log"
        async with asyncio.timeout(120):
            while b'"run.ready"' not in log.read_bytes():
                assert worker.poll() is None, f"the worker ended: {log.read_text()[-2000:]}"
                await asyncio.sleep(0.05)

    def variant(self, flag: str) -> str:
        return str(json.loads(self.flag_file.read_text())["flags"][flag]["defaultVariant"])

    async def flipped(self, flag: str, within: float = 120) -> None:
        async with asyncio.timeout(within):
            while self.variant(flag) != "off":
                await asyncio.sleep(0.05)

    async def events(self) -> list[Event]:
        """All events so far."""
        records = await read_to_end(self.topics.events, self.client)
        return [from_kafka(record.value, record.headers) for record in records]

    async def health(self) -> list[Health]:
        """All health records so far."""
        records = await read_to_end(self.topics.health, self.client)
        return [health_decoder.decode(record.value) for record in records if record.value]

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def close(self) -> None:
        """Stop every worker by SIGTERM, and after 10 s by SIGKILL. A failing test shows their logs."""
        alive = [worker for worker in self.workers if worker.poll() is None]
        for worker in alive:
            worker.terminate()
        for worker in alive:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                self.kill(worker)
        if sys.exception() is not None:
            for number in range(len(self.workers)):
                log = self.directory / f"worker-{number}.log"
                sys.stderr.write(f"--- the end of {log}:\n{log.read_text(errors='replace')[-4000:]}\n")
