"""The demo's settings: its names and numbers, the flag file, and flipback's configuration."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from streams.kafka.topics import Topics

FLAG = "new-recommendations"
SERVICE = "shop"
NEW, OLD = "on", "off"
INSTANCES = ("shop-1", "shop-2")
"""Two instances, because a trigger needs samples from more than one."""
RATE = 200
"""Requests/s of all instances together."""
FAULT_RATE = 0.2
"""Share of the new path's requests that fail after the fault is injected."""
FAULT_AFTER = 10.0
"""Seconds of healthy traffic before the fault."""
THRESHOLD = 0.02
HOLD = 10
"""Seconds for which the trigger's condition must hold."""
USUAL_HOLD = "2m"
TRIGGER = f"error_rate > {THRESHOLD:.0%} for {HOLD}s"


@dataclass(frozen=True, slots=True)
class Scene:
    """One run's directory, brokers (host:port, separated by commas) and names.

    The prefix is new for each run, so that a run does not read the topics of an earlier one. `session_timeout` is in
    seconds; None stands for flipback's default.
    """

    directory: Path
    brokers: str
    embedded: bool
    prefix: str
    health_port: int
    session_timeout: float | None

    @property
    def topic(self) -> str:
        """The telemetry topic."""
        return f"{self.prefix}-requests"

    @property
    def topics(self) -> Topics:
        return Topics(self.prefix)

    @property
    def flags(self) -> Path:
        return self.directory / "flags.json"

    @property
    def config(self) -> Path:
        return self.directory / "flipback.yaml"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def connection(self) -> dict[str, list[str]]:
        """Arguments of an aiokafka client."""
        return {"bootstrap_servers": self.brokers.split(",")}

    def write(self) -> None:
        """Write the configuration, and the flag file, in which the flag is on for half of the users."""
        half = {"fractional": [{"var": "targetingKey"}, [NEW, 50], [OLD, 50]]}
        flag = {"state": "ENABLED", "variants": {NEW: True, OLD: False}, "defaultVariant": OLD, "targeting": half}
        flags = {"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": {FLAG: flag}}
        self.flags.write_text(json.dumps(flags, indent=2) + "\n")
        self.config.write_text(self._config())

    def _config(self) -> str:
        kafka = [f"brokers: {json.dumps(self.brokers.split(','))}", f"prefix: {self.prefix}"]
        if self.session_timeout is not None:
            kafka.append(f"session_timeout: {self.session_timeout:g}s")
        if not self.embedded:
            kafka.append("security: {allow_plaintext: true}")
        settings = "\n  ".join(kafka)
        return f"""\
apiVersion: flipback/v1
kafka:
  {settings}
telemetry:
  - {{topic: {self.topic}, format: json}}
backends:
  files: {{kind: flagd-file, path: {self.flags.name}}}
flags:
  - flag: {FLAG}
    service: {SERVICE}
    backend: files
    safe: "{OLD}"
    triggers:
      - {{name: errors, when: "{TRIGGER}", min_samples: 30, fast: false}}
web: {{port: {self.health_port}}}
"""


def new_prefix() -> str:
    return f"flipback-demo-{uuid.uuid4().hex[:8]}"
