"""Requests to flag systems: one is one."""

from __future__ import annotations

import time

import pytest
from aiohttp import web

from agent.backends.http import Http
from agent.errors import Transient
from agent.fakes.server import listen


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_request_is_sent_once_though_its_connection_was_kept_open_and_breaks(method: str) -> None:
    received = []

    async def serve(request: web.Request) -> web.Response:
        received.append(request.method)
        if len(received) > 1:
            assert request.transport is not None
            request.transport.close()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/", serve)
    runner, port = await listen(app, 0)
    http = Http("the server")
    try:
        await http.request("GET", f"http://127.0.0.1:{port}/", deadline=time.monotonic() + 5)
        with pytest.raises(Transient):
            await http.request(method, f"http://127.0.0.1:{port}/", deadline=time.monotonic() + 5)
        assert received == ["GET", method]
    finally:
        await http.close()
        await runner.cleanup()
