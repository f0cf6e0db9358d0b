"""`flipback init`: a commented configuration and a file of flags to start with. The README shows the same text."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from agent.backends.address import is_loopback
from agent.errors import FlipbackError
from detectors.conditions.metric_table import metrics_of

CONFIG_NAME = "flipback.yaml"
FLAGS_NAME = "flags.json"

_CONFIG = """\
apiVersion: flipback/v1
kafka: {{brokers: [{brokers}]{security}
telemetry:
  - {{topic: {topic}, format: json}}        # the topic of the samples; `flipback run` does not create it
backends:
  files: {{kind: flagd-file, path: {flags}}}
flags:
  - flag: {flag}
    service: {service}
    backend: files
    safe: "off"                              # the variant of a rollback; in quotes, else YAML reads a boolean
    triggers:
      # The release: requests with the new variant alone. They need `flags` in the samples, and `status` or `outcome`.
      - {{name: new-path-fails, when: error_rate@on > 2% over 10s for 10s}}
      - {{name: worse-than-old, when: error_rate@on > control}}
      # The whole service, whichever variant fails. Each needs the field behind it in the samples.
      - {{name: errors, when: error_rate > 2% for 2m}}            # status or outcome
      - {{name: slow, when: latency_p95 > 45s for 1m}}            # latency_ms
      - {{name: cold-cache, when: {cached} < 40% for 5m}}   # cache
      - {{name: down, when: availability < 99% for 30s}}          # status or outcome, of 100 requests/s for a minute
"""


_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# YAML reads `1:30` as a number, so a host needs a letter or a dot.
_BROKER = re.compile(r"([A-Za-z0-9_-]*[A-Za-z.][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def is_plain(name: str) -> bool:
    """Return whether YAML and JSON read a name as text without quotes: letters, digits, `.`, `_` and `-`."""
    return _PLAIN.fullmatch(name) is not None


def is_broker(address: str) -> bool:
    """Return whether an address is HOST:PORT with a port from 1 to 65535; an IPv6 host is in brackets."""
    match = _BROKER.fullmatch(address)
    return match is not None and 0 < int(match[2]) < 65536


class Names(NamedTuple):
    """The names in both files. Service, flag and topic must be plain (`is_plain`), brokers addresses (`is_broker`)."""

    service: str = "recommendations"
    flag: str = "new-recommendations"
    topic: str = "requests"
    brokers: tuple[str, ...] = ("127.0.0.1:9092",)


_TLS = ", security: {}}    # TLS; `{allow_plaintext: true}` where the network between is trusted"


def config_text(names: Names) -> str:
    """Return the configuration. Brokers that are not on loopback get TLS: plaintext needs a person's edit."""
    brokers = ", ".join(f'"{one}"' if one.startswith("[") else one for one in names.brokers)
    local = all(is_loopback(one.rpartition(":")[0].strip("[]")) for one in names.brokers)
    words = {**names._asdict(), "brokers": brokers, "security": "}" if local else _TLS}
    return _CONFIG.format(**words, cached=metrics_of("cache")[0], flags=FLAGS_NAME)


def flags_text(names: Names) -> str:
    """Return a file of flags for flagd that gives half of the users, by `userId`, the new variant."""
    flag = {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": {"fractional": [{"var": "userId"}, ["on", 50], ["off", 50]]},
    }
    return json.dumps({"flags": {names.flag: flag}}, indent=2) + "\n"


def write(directory: Path, names: Names) -> list[Path]:
    """Write both files into a directory, which is created if it is missing.

    Raises FlipbackError if a file cannot be written, or if one of the two exists: then nothing is written.
    """
    files = {directory / CONFIG_NAME: config_text(names), directory / FLAGS_NAME: flags_text(names)}
    there = [str(path) for path in files if os.path.lexists(path)]
    if there:
        raise FlipbackError(f"{' and '.join(there)} would be overwritten; name another directory, or move it away")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise FlipbackError(f"{directory} cannot be written: {error.strerror or error}") from error
    return list(files)
