"""A proxy in front of a real flag system that injects faults."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from agent.fakes.faults import FakeFault, FakeFaults
from agent.fakes.server import LOOPBACK, listen

_PASSED_ON = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "X-Flipback-Signature",
    "X-Flipback-Timestamp",
)
_PASSED_BACK = ("ETag", "Idempotent-Replayed")
_READS = ("GET", "HEAD")


class FaultProxy:
    """Forwards requests to `upstream`. `writes` counts those that changed something there."""

    def __init__(self, upstream: str) -> None:
        self.faults = FakeFaults()
        self.writes = 0
        self.port = 0
        self._upstream = upstream
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._seen: dict[str, web.Response] = {}
        self._before: dict[str, web.Response] = {}

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._session = aiohttp.ClientSession()
        self._runner, self.port = await listen(app, 0)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.take("read" if request.method in _READS else "write")
        if fault is None:
            return await self._pass_on(request)
        if fault.kind == "status":
            return _refusal(fault)
        if fault.kind == "lie":
            # The fault `lie` acknowledges a write that is not made, and answers a read with an earlier state.
            before = self._before.get(request.path_qs) if request.method in _READS else web.Response()
            return _copy(before) if before is not None else await self._pass_on(request)
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        if fault.kind in ("commit-then-fail", "commit-then-hang", "delay") or (
            fault.kind == "drop" and request.method not in _READS
        ):
            answer = await self._pass_on(request)
            if fault.kind == "delay":
                return answer
        if fault.kind == "commit-then-fail":
            return _refusal(fault)
        if fault.kind in ("hang", "commit-then-hang"):
            # Until the client closes the connection, or the proxy is stopped.
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert self._session is not None
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        url = f"{self._upstream}{request.path_qs}"
        async with self._session.request(request.method, url, data=await request.read(), headers=headers) as got:
            back = {name: got.headers[name] for name in _PASSED_BACK if name in got.headers}
            answer = web.Response(status=got.status, body=await got.read(), content_type=got.content_type, headers=back)
        if request.method in _READS:
            self._seen[request.path_qs] = answer
        elif answer.status < 300 and answer.headers.get("Idempotent-Replayed") != "true":
            self.writes += 1
            self._before = dict(self._seen)
        return _copy(answer)


def _copy(answer: web.Response) -> web.Response:
    """Return a copy of an answer, because an answer can be sent only once."""
    headers = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type, headers=headers)


def _refusal(fault: FakeFault) -> web.Response:
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    return web.Response(status=fault.status, headers=headers, text="a fault on order")
