"""The receiver in docs/webhook.md, exactly as it is shown there, behind a proxy for faults."""

from __future__ import annotations

import copy
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.backends import settings
from agent.backends.contract import FlagBackend
from agent.backends.webhook.backend import WebhookBackend
from agent.fakes.faults import FakeFaults
from agent.fakes.server import LOOPBACK, listen
from tests.support.places.proxy import FaultProxy

PAGE = Path(__file__).parents[3] / "docs" / "webhook.md"


def receiver(secret_file: Path) -> dict[str, Any]:
    """Run the code of the documented receiver as a module; return its names."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "receiver"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_FILE", str(secret_file))
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - what the documentation shows
    return names


class WebhookPlace:
    def __init__(self, directory: Path) -> None:
        self.secret_file = directory / "webhook.secret"
        self.secret_file.write_text(f"{secrets.token_hex(16)}\n")
        self.secret_file.chmod(0o600)
        self._names = receiver(self.secret_file)
        self._flags: dict[tuple[str, str], dict[str, Any]] = self._names["FLAGS"]
        self._flags["production", "other"] = copy.deepcopy(self._flags["production", "new-checkout"])
        self._runner: web.AppRunner | None = None
        self._proxy: FaultProxy | None = None
        self.backend: FlagBackend
        self.faults: FakeFaults | None = None

    async def start(self) -> None:
        self._runner, port = await listen(self._names["app"], 0)
        self._proxy = FaultProxy(f"http://{LOOPBACK}:{port}")
        self.faults = self._proxy.faults
        await self._proxy.start()
        self.backend = self.another()

    async def stop(self) -> None:
        assert self._proxy is not None
        assert self._runner is not None
        await self._proxy.stop()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        assert self._proxy is not None
        return self._proxy.url

    def blind(self) -> FlagBackend:
        """Make a backend that can read nothing; its caller closes it."""
        return WebhookBackend(settings.Webhook(url=f"{self.url}/set", secret_file=self.secret_file))

    def another(self) -> FlagBackend:
        base = self.url
        return WebhookBackend(
            settings.Webhook(
                url=f"{base}/set", state_url=f"{base}/{{environment}}/{{flag}}", secret_file=self.secret_file
            )
        )

    async def edit(self, variant: str) -> None:
        flag = self._flags["production", "new-checkout"]
        variants = [*flag["variants"], *({variant} - set(flag["variants"]))]
        flag.update(variant=variant, percent=None, variants=variants, version=flag["version"] + 1)

    async def edit_other_flag(self) -> None:
        self._flags["production", "other"].update(variant="off", version=2)

    async def content(self) -> object:
        return {
            ref: {name: member for name, member in flag.items() if name != "version"}
            for ref, flag in copy.deepcopy(self._flags).items()
        }

    async def writes(self) -> int:
        assert self._proxy is not None
        return self._proxy.writes
