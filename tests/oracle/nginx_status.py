"""Status snapshots of a real nginx as counters: its zones, upstreams, health checks and cache.

`python -m tests.oracle.nginx_status` prints the recording, to be replayed with `tests/data/nginx-plus.yaml`.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data"
SOURCE = DATA / "nginx-plus-status-500.jsonl.gz"

LOOKUPS = ("hit", "stale", "updating", "revalidated", "miss", "expired")
"""Responses that looked into the cache; a bypass does not."""
HITS = ("hit", "stale", "updating", "revalidated")
"""Responses that came from the cache."""


def statuses() -> Iterator[dict[str, Any]]:
    with gzip.open(SOURCE) as file:
        yield from map(json.loads, file)


def records() -> Iterator[bytes]:
    """Yield one record per series and snapshot."""
    for status in statuses():
        for series, counters in _series(status):
            yield json.dumps({"ts": status["timestamp"] / 1000, **series, "counters": counters}).encode()


def totals(status: dict[str, Any]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield service and counters of everything that has a series."""
    for series, counters in _series(status):
        if series["instance"] == status["address"]:
            yield series["service"], counters


def _series(status: dict[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    nginx = status["address"]
    for name, zone in status["server_zones"].items():
        # A class of statuses does not single out the 502, so a zone has no availability.
        counters = {"requests": zone["responses"]["total"], "errors": zone["responses"]["5xx"]}
        yield {"service": name, "instance": nginx}, counters
    for name, upstream in status["upstreams"].items():
        for peer in upstream["peers"]:
            # `fails` are attempts without a usable answer; they are not among the responses.
            responses, fails = peer["responses"], peer["fails"]
            yield (
                {"service": name, "instance": peer["server"]},
                {"requests": responses["total"] + fails, "errors": responses["5xx"] + fails, "unavailable": fails},
            )
            checks = peer["health_checks"]
            yield (
                {"service": f"{name} health", "instance": peer["server"]},
                {"requests": checks["checks"], "errors": checks["fails"], "unavailable": checks["fails"]},
            )
    for name, cache in status["caches"].items():
        lookups = sum(cache[kind]["responses"] for kind in LOOKUPS)
        counters = {"requests": lookups + cache["bypass"]["responses"], "cache_lookups": lookups}
        counters["cache_hits"] = sum(cache[kind]["responses"] for kind in HITS)
        yield {"service": name, "instance": nginx}, counters


if __name__ == "__main__":
    sys.stdout.writelines(record.decode() + "\n" for record in records())
