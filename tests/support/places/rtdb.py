"""A fake Realtime Database with a backend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.backends import settings
from agent.backends.contract import FlagBackend
from agent.backends.rtdb.backend import RealtimeDatabaseBackend
from agent.fakes.faults import FakeFaults
from agent.fakes.rtdb.server import FakeRealtimeDatabase


class RealtimeDatabasePlace:
    def __init__(self, directory: Path) -> None:
        self.fake = FakeRealtimeDatabase()
        flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
        self.fake.set("flags", {"new-checkout": flag, "other": {**flag, "targeting": {"if": [True, "on", "off"]}}})
        self.faults: FakeFaults | None = self.fake.faults

    async def start(self) -> None:
        await self.fake.start()
        self.backend = self.another()

    async def stop(self) -> None:
        await self.fake.stop()

    def another(self) -> FlagBackend:
        return RealtimeDatabaseBackend(
            settings.RealtimeDatabase(
                url="https://shop-default-rtdb.firebaseio.com", emulator=f"127.0.0.1:{self.fake.port}"
            )
        )

    async def edit(self, variant: str) -> None:
        # As in the console: only the members that change, not the operation that wrote before.
        if variant not in self.fake.flags()["new-checkout"]["variants"]:
            self.fake.set(f"flags/new-checkout/variants/{variant}", True)
        self.fake.put("new-checkout", variant)

    async def edit_other_flag(self) -> None:
        self.fake.put("other", "off")

    async def content(self) -> object:
        flags: dict[str, Any] = self.fake.flags()
        for flag in flags.values():
            flag.get("metadata", {}).pop("flipback_op", None)
            if not flag.get("metadata"):
                flag.pop("metadata", None)
        return flags

    async def writes(self) -> int:
        return self.fake.writes
