"""The session's real Unleash server behind a proxy for faults; each test begins with the same flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from agent.backends import settings
from agent.backends.contract import FlagBackend
from agent.backends.unleash.backend import UnleashBackend
from agent.fakes.faults import FakeFaults
from tests.support.places.proxy import FaultProxy
from tests.support.unleash.server import UnleashServer, running

FLAGS = ("new-checkout", "other")


class Person:
    """A person who uses Unleash's admin API directly."""

    def __init__(self, server: UnleashServer) -> None:
        self._base = f"{server.url}/api/admin"
        self._token = server.admin_token
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def make(self, flag: str) -> None:
        """Reset the flag: on for everyone, by one strategy.

        This does not delete it: Unleash 8.2.0 crashes on an event of a feature that no longer exists.
        """
        if await self.ask("GET", f"/projects/default/features/{flag}", allowed=404) is None:
            await self.ask("POST", "/projects/default/revive", {"features": [flag]}, allowed=404)
            if await self.ask("GET", f"/projects/default/features/{flag}", allowed=404) is None:
                await self.ask("POST", "/projects/default/features", {"name": flag, "type": "release"})
        await self.ask("DELETE", f"/projects/default/features/{flag}/dependencies", allowed=404)
        for strategy in await self.strategies(flag):
            await self.ask("DELETE", f"{place_of(flag)}/strategies/{strategy['id']}")
        parameters = {"rollout": "100", "stickiness": "default", "groupId": flag}
        strategy = {"name": "flexibleRollout", "constraints": [], "parameters": parameters}
        await self.ask("POST", f"{place_of(flag)}/strategies", strategy)
        await self.ask("POST", f"{place_of(flag)}/on")

    async def strategies(self, flag: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.ask("GET", f"{place_of(flag)}/strategies")
        return found

    async def change_strategy(self, flag: str, **members: object) -> None:
        """Change members of the flag's one strategy."""
        (strategy,) = await self.strategies(flag)
        await self.ask("PUT", f"{place_of(flag)}/strategies/{strategy['id']}", {**strategy, **members})

    async def ask(self, method: str, path: str, body: object = None, allowed: int = 200) -> Any:
        """Send a request; return the decoded answer, None if it is empty."""
        if self._session is None:
            self._session = aiohttp.ClientSession(headers={"Authorization": self._token})
        async with self._session.request(method, f"{self._base}{path}", json=body) as answer:
            text = await answer.text()
            assert answer.status < 300 or answer.status == allowed, (method, path, answer.status, text)
            return await answer.json() if text and answer.status < 300 else None


class UnleashPlace:
    def __init__(self, directory: Path) -> None:
        self._server = running()
        self._proxy = FaultProxy(self._server.url)
        self.token_file = directory / "unleash.token"
        self.token_file.write_text(f"{self._server.admin_token}\n")
        self.token_file.chmod(0o600)
        self.person = Person(self._server)
        self.backend: FlagBackend
        self.faults: FakeFaults | None = self._proxy.faults

    @property
    def url(self) -> str:
        """Where the backend reaches Unleash."""
        return self._proxy.url

    @property
    def server_url(self) -> str:
        return self._server.url

    async def start(self) -> None:
        await self._proxy.start()
        self.backend = self.another()
        for flag in FLAGS:
            await self.person.make(flag)

    async def stop(self) -> None:
        await self.person.close()
        await self._proxy.stop()

    def another(self) -> FlagBackend:
        return UnleashBackend(settings.Unleash(url=self._proxy.url, token_file=self.token_file))

    async def edit(self, variant: str) -> None:
        if variant not in ("on", "off"):
            # What Unleash calls a variant is part of a strategy: the flag is on, and this is the name of its payload.
            one = {"name": variant, "weight": 1000, "weightType": "variable", "stickiness": "default"}
            await self.person.change_strategy("new-checkout", variants=[one])
        await self.person.ask("POST", f"{place_of('new-checkout')}/{'off' if variant == 'off' else 'on'}")

    async def edit_other_flag(self) -> None:
        await self.person.ask("POST", f"{place_of('other')}/off")

    async def content(self) -> object:
        return [_lasting(await self.person.ask("GET", f"/projects/default/features/{flag}")) for flag in FLAGS]

    async def writes(self) -> int:
        return self._proxy.writes


def place_of(flag: str) -> str:
    return f"/projects/default/features/{flag}/environments/production"


def _lasting(feature: dict[str, Any]) -> dict[str, Any]:
    """Return what people set, without who did, and without the life cycle that Unleash derives later."""
    environments = [
        {name: found[name] for name in ("name", "enabled", "strategies")} for found in feature["environments"]
    ]
    kept = {name: feature[name] for name in ("name", "type", "stale", "archived", "dependencies", "project")}
    return {**kept, "environments": environments}
