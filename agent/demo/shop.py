"""The demo's shop: a small real HTTP service with a release behind a flag.

Run as `python -m agent.demo.shop NAME PORT FLAGS_FILE TOPIC BROKERS`. It evaluates its flag by OpenFeature for every
request, and emits a sample of every request that it has answered:

    GET  /recommendations?user=ID   the new or the old code path; the header x-path names it
    POST /fault?rate=0.2            from now on this share of the new path's requests fails
    GET  /healthz
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext

from agent.demo.scene import FLAG, NEW, OLD, SERVICE
from agent.logs.setup import configure
from streams.telemetry.emitter import Emitter
from streams.telemetry.sample import Sample

FLAG_POLL_MS = 50
"""Milliseconds between readings of the flag file. The file provider uses its `deadline_ms` for this, 500 by default."""

ROUTE = "/recommendations"
_NEW_PATH_S, _OLD_PATH_S, _CACHED_S = 0.006, 0.004, 0.001
_CACHE_SECONDS = 2.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DemoShop:
    """The service's state: its flag client, the fault rate of the new path, and a cache of results."""

    def __init__(self, name: str, emitter: Emitter) -> None:
        self.name = name
        self._emitter = emitter
        self._flags = api.get_client()
        self._fault_rate = 0.0
        self._due = 0.0
        self._cached: dict[tuple[str, bool], float] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get(ROUTE, self.recommendations)
        app.router.add_post("/fault", self.fault)
        app.router.add_get("/healthz", self.healthz)
        return app

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def fault(self, request: web.Request) -> web.Response:
        self._fault_rate = float(request.query["rate"])
        return web.Response(text=f"{self._fault_rate:.0%} of the new path's requests fail\n")

    async def recommendations(self, request: web.Request) -> web.Response:
        began = time.monotonic()
        user = request.query["user"]
        details = self._flags.get_boolean_details(FLAG, False, EvaluationContext(targeting_key=user))
        hit = await self._work(user, new=details.value)
        failed = details.value and self._fails()
        status = 500 if failed else 200
        self._emitter.emit(
            Sample(
                ts=time.time(),
                service=SERVICE,
                route=ROUTE,
                instance=self.name,
                status=status,
                outcome="error" if failed else "ok",
                latency_ms=(time.monotonic() - began) * 1000,
                cache="hit" if hit else "miss",
                flags={FLAG: details.variant or "default"},
            )
        )
        return web.json_response(
            {"error": "no recommendations"} if failed else {"user": user, "items": [sum(user.encode()) % 97]},
            status=status,
            headers={"x-path": NEW if details.value else OLD},
        )

    async def _work(self, user: str, *, new: bool) -> bool:
        """Wait as long as the work takes; returns whether the result was in the cache."""
        now = time.monotonic()
        hit = self._cached.get((user, new), 0.0) > now
        if not hit:
            self._cached[user, new] = now + _CACHE_SECONDS
        await asyncio.sleep(_CACHED_S if hit else _NEW_PATH_S if new else _OLD_PATH_S)
        return hit

    def _fails(self) -> bool:
        """Whether this call fails: evenly spaced calls do, not random ones, so that the share is exact in every run."""
        self._due += self._fault_rate
        if self._due < 1:
            return False
        self._due -= 1
        return True


async def serve(name: str, port: int, flags: Path, topic: str, brokers: str) -> None:
    """Serve on loopback until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    provider = FlagdProvider(
        resolver_type=ResolverType.FILE, offline_flag_source_path=str(flags), deadline_ms=FLAG_POLL_MS
    )
    api.set_provider_and_wait(provider)
    async with Emitter(topic, {"bootstrap_servers": brokers.split(",")}) as emitter:
        runner = web.AppRunner(
            DemoShop(name, emitter).app(), access_log=None, handle_signals=False, shutdown_timeout=0.5
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            await stop.wait()
        finally:
            await runner.cleanup()
    api.shutdown()


if __name__ == "__main__":
    configure("warning", json=True)
    _, _name, _port, _flags, _topic, _brokers = sys.argv
    asyncio.run(serve(_name, int(_port), Path(_flags), _topic, _brokers))
