"""The interface of every fake flag system, and its control port, by which faults are added while it runs.

GET /faults               list the faults that have not happened yet
POST /faults              add faults in their written form (text), one per line
DELETE /faults            remove all faults
PUT /flags/NAME?variant=on   set a flag with the variants on and off, as a person would
GET /flags                list all flags as they are stored
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from aiohttp import web

from agent.errors import FlipbackError
from agent.fakes.faults import FakeFaults

LOOPBACK = "127.0.0.1"


class Fake(Protocol):
    """A flag system on loopback. `port` is its port once it is started; `writes` counts the writes of clients."""

    faults: FakeFaults
    port: int
    writes: int

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; 0 takes a free port."""
        ...

    async def stop(self) -> None: ...

    def put(self, flag: str, variant: str) -> None:
        """Give `variant` ("on" or "off") to every subject, as a person would; create the flag if it is missing."""
        ...

    def flags(self) -> dict[str, Any]:
        """Return all flags as they are stored."""
        ...


class Control:
    """The control port of a fake."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/faults", self._list)
        app.router.add_post("/faults", self._add)
        app.router.add_delete("/faults", self._clear)
        app.router.add_put("/flags/{name}", self._put)
        app.router.add_get("/flags", self._flags)
        self._runner, self.port = await listen(app, port)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _list(self, request: web.Request) -> web.Response:
        return _json(self._fake.faults.waiting())

    async def _add(self, request: web.Request) -> web.Response:
        try:
            for line in (await request.text()).splitlines():
                if line.strip():
                    self._fake.faults.add(line)
        except FlipbackError as error:
            return web.Response(status=400, text=f"{error}\n")
        return _json(self._fake.faults.waiting())

    async def _clear(self, request: web.Request) -> web.Response:
        self._fake.faults.clear()
        return _json([])

    async def _put(self, request: web.Request) -> web.Response:
        variant = request.query.get("variant", "on")
        if variant not in ("on", "off"):
            return web.Response(status=400, text="variant is on or off\n")
        try:
            self._fake.put(request.match_info["name"], variant)
        except FlipbackError as error:
            return web.Response(status=400, text=f"{error}\n")
        return _json(self._fake.flags())

    async def _flags(self, request: web.Request) -> web.Response:
        return _json(self._fake.flags())


async def listen(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    """Serve on loopback; return the runner, for its cleanup, and the port. Raises FlipbackError if it is taken."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
    except OSError as error:
        await runner.cleanup()
        raise FlipbackError(f"cannot listen on {LOOPBACK}:{port}: {error.strerror or error}") from error
    return runner, int(runner.addresses[0][1])


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value) + b"\n", content_type="application/json")
