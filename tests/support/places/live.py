"""A real project: the backends of the configuration that FLIPBACK_LIVE names, tested with the same suite as the others.

The project must hold the flags `new-checkout` and `other`, each with the variants on, off and beta; both are written.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from agent import backends
from agent.backends.contract import FlagBackend, FlagRef
from agent.config.load import load
from agent.fakes.faults import FakeFaults

CONFIG = os.environ.get("FLIPBACK_LIVE", "")
PREFIX = "live:"
PATIENCE_S = 20.0


def kinds() -> list[str]:
    """Return a kind for each backend of the configuration; none without a configuration."""
    return [f"{PREFIX}{name}" for name in load(Path(CONFIG)).backends] if CONFIG else []


class LivePlace:
    faults: FakeFaults | None = None

    def __init__(self, name: str) -> None:
        self._settings = load(Path(CONFIG)).backends[name]
        self.backend = self.another()
        # A person's edits use a backend of their own: the tested backend must not know of them.
        self._person = self.another()

    async def start(self) -> None:
        for flag in ("new-checkout", "other"):
            await self._set(flag, "on")

    async def stop(self) -> None:
        await self._person.close()

    def another(self) -> FlagBackend:
        return backends.make(self._settings)

    async def edit(self, variant: str) -> None:
        await self._set("new-checkout", variant)

    async def edit_other_flag(self) -> None:
        await self._set("other", "off")

    async def content(self) -> object:
        deadline = time.monotonic() + PATIENCE_S
        refs = [FlagRef(flag, "production") for flag in ("new-checkout", "other")]
        return [(await self._person.read(ref, deadline=deadline)).version for ref in refs]

    async def writes(self) -> int:
        raise NotImplementedError("a real project does not tell")

    async def _set(self, flag: str, variant: str) -> None:
        deadline, ref = time.monotonic() + PATIENCE_S, FlagRef(flag, "production")
        version = (await self._person.read(ref, deadline=deadline)).version
        await self._person.apply(ref, variant, expect=version, op_id=str(uuid.uuid4()), deadline=deadline)
