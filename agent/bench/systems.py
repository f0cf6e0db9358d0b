"""Flag systems for a measurement: a flagd file, the fakes in separate processes, and a real Unleash if one is given.

The environment variable FLIPBACK_BENCH_UNLEASH gives the settings of a server that has the flags, all on, as JSON:
`url` and `token_file`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from agent.bench.program import program
from agent.demo.children import free_port, listens, start, stop

KINDS = ("flagd-file", "firestore", "rtdb", "remote-config")
_UNLEASH = "FLIPBACK_BENCH_UNLEASH"

_PATIENCE = 20.0


def kinds() -> list[str]:
    """The kinds of flag systems that can be measured; Unleash only if a server is given."""
    return [*KINDS, *(["unleash"] if _UNLEASH in os.environ else [])]


@asynccontextmanager
async def system(kind: str, flags: Sequence[str], directory: Path) -> AsyncIterator[dict[str, Any]]:
    """Provide a flag system with every flag on; yields the settings of its backend."""
    if kind == "flagd-file":
        yield flagd_file(flags, directory)
        return
    if kind == "unleash":
        yield {"kind": kind, **msgspec.json.decode(os.environ[_UNLEASH])}
        return
    port = free_port()
    options = [word for flag in flags for word in ("--flag", f"{flag}=on")]
    child = await start(f"fake-{kind}", [*program(), "fake", kind, "--port", str(port), *options], directory)
    try:
        await child.answers(lambda: listens("127.0.0.1", port), _PATIENCE)
        yield {"kind": kind, "emulator": f"127.0.0.1:{port}", **_PROJECT[kind]}
    finally:
        await stop(child)


def flagd_file(flags: Sequence[str], directory: Path) -> dict[str, Any]:
    """Write flags.json with every flag on; returns the settings of its backend."""
    content = {f: {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"} for f in flags}
    (directory / "flags.json").write_bytes(msgspec.json.format(msgspec.json.encode({"flags": content}), indent=1))
    return {"kind": "flagd-file", "path": "flags.json"}


_PROJECT: dict[str, dict[str, Any]] = {
    "firestore": {"project": "flipback-fake"},
    "rtdb": {"url": "https://flipback-fake-default-rtdb.firebaseio.com"},
    # Without the limit of one publication in 5 s, which protects the quota of a real project.
    "remote-config": {"project": "flipback-fake", "publish_every": "0s"},
}
