"""The fake Remote Config: its client template, and its server template with the older status of a conflict."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from agent.backends import settings
from agent.backends.contract import FlagBackend
from agent.backends.remote_config.backend import RemoteConfigBackend
from agent.fakes.faults import FakeFaults
from agent.fakes.remote_config.server import CLIENT, SERVER, FakeRemoteConfig
from streams.settings import Seconds


class RemoteConfigPlace:
    template: ClassVar[Literal["client", "server"]] = "client"
    conflict_status = 409

    def __init__(self, directory: Path) -> None:
        self.fake = FakeRemoteConfig(self.conflict_status)
        self._space = CLIENT if self.template == "client" else SERVER
        self.fake.put("new-checkout", "on")
        self.fake.put("other", "on")

    @property
    def faults(self) -> FakeFaults | None:
        return self.fake.faults

    async def start(self) -> None:
        await self.fake.start()
        self.backend = self.another()

    async def stop(self) -> None:
        await self.fake.stop()

    def another(self) -> FlagBackend:
        return RemoteConfigBackend(
            settings.RemoteConfig(
                project="flipback-fake",
                template=self.template,
                publish_every=Seconds(0),
                emulator=f"127.0.0.1:{self.fake.port}",
            )
        )

    async def edit(self, variant: str) -> None:
        if variant in ("on", "off"):
            self.fake.put("new-checkout", variant)
            return
        template = self.fake.template(self._space)
        template["parameters"]["new_checkout"] = {"defaultValue": {"value": variant}, "valueType": "STRING"}
        self.fake.publish(template, self._space)

    async def edit_other_flag(self) -> None:
        self.fake.put("other", "off")

    async def content(self) -> object:
        return [self._content(space) for space in (CLIENT, SERVER)]

    async def writes(self) -> int:
        return self.fake.writes

    def _content(self, space: str) -> dict[str, Any]:
        return {name: value for name, value in self.fake.template(space).items() if name != "version"}


class RemoteConfigServerPlace(RemoteConfigPlace):
    template = "server"
    conflict_status = 412
