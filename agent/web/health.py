"""Health over HTTP, for a supervisor: GET /healthz (is it alive) and /readyz (would a flip happen now).

The server listens on loopback unless the configuration names another address. It answers with 200, or with 503 and
`"failing"`: `{"status": "ok", "roles": {"monitor": {"live": true, "ready": true, "detail": "42 scopes"}}}`. The answer
of /readyz also has `armed` and `obstacles`, the same as in `flipback status`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

import msgspec
from aiohttp import web

from agent.armed.verdict import Arming
from agent.errors import FlipbackError
from agent.logs.setup import log_event

T = TypeVar("T")

_logger = logging.getLogger(__name__)

STOP_TIMEOUT = 0.5
"""Seconds that open connections get when the server stops; the whole process has END_WITHIN (runtime/shutdown.py)."""


@dataclass(frozen=True, slots=True)
class RoleHealth:
    """The health of a role. Not `live`: restart it. Not `ready`: it is still catching up. `detail` is for a person."""

    live: bool
    ready: bool
    detail: str


class HealthServer:
    """Serves the results of `health()` and `arming()`, called in the event loop: they must not wait."""

    def __init__(
        self,
        health: Callable[[], Mapping[str, RoleHealth]],
        arming: Callable[[], Arming | None],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._health = health
        self._arming = arming
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The server's URL, with the real port also if 0 was configured. Raises RuntimeError before `start`."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("the health server is not started")
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Start to listen. Raises FlipbackError if the address cannot be used."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_TIMEOUT)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise FlipbackError(
                f"the health server cannot listen on {self._host}:{self._port}: {error.strerror or error}; "
                "does another flipback run here? Choose another `port` under `web` in the configuration; 0 takes any "
                "that is free"
            ) from error
        self._runner = runner
        log_event(_logger, "health.listening", url=self.url)

    async def stop(self) -> None:
        """Stop listening; does nothing if the server was not started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, request: web.Request) -> web.Response:
        return self._answer(lambda roles: all(role.live for role in roles.values()), {})

    async def _readyz(self, request: web.Request) -> web.Response:
        arming = self._result_of(self._arming)
        # A process without roles yet is alive and not ready: a supervisor must not restart it while it starts.
        return self._answer(
            lambda roles: (
                arming is not None
                and arming.ready
                and bool(roles)
                and all(role.live and role.ready for role in roles.values())
            ),
            {
                "armed": arming is not None and arming.armed,
                "obstacles": [msgspec.to_builtins(one) for one in arming.obstacles] if arming is not None else [],
            },
        )

    def _answer(self, judge: Callable[[Mapping[str, RoleHealth]], bool], more: Mapping[str, object]) -> web.Response:
        roles = self._result_of(self._health)
        ok = roles is not None and judge(roles)
        body = {
            "status": "ok" if ok else "failing",
            **more,
            "roles": {name: asdict(role) for name, role in (roles or {}).items()},
        }
        return web.json_response(body, status=200 if ok else 503, headers={"Cache-Control": "no-store"})

    def _result_of(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except Exception as error:
            # A process that cannot report its health is not healthy.
            log_event(_logger, "health.failed", level=logging.ERROR, error=repr(error))
            return None
