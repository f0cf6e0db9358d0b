"""HTTP requests to flag systems: each is sent once."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from agent.backends.http import Http
from agent.errors import BackendError, Transient
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
        await http.request("GET", f"http://127.0.0.1:{port}/", deadline=time.monotonic() + 60)
        with pytest.raises(Transient):
            await http.request(method, f"http://127.0.0.1:{port}/", deadline=time.monotonic() + 60)
        assert received == ["GET", method]
    finally:
        await http.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        b"\xff\xfe\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 999 \xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag: \xe9\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\xe9: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 429 Slow\r\nRetry-After: \xb2\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    ],
    ids=map(str, range(14)),
)
async def test_no_bytes_of_a_server_raise_anything_but_a_backend_error(raw: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    http = Http("it")
    port = server.sockets[0].getsockname()[1]
    try:
        found = await http.request("GET", f"http://127.0.0.1:{port}/", deadline=time.monotonic() + 60)
        for name, content in found.headers.items():
            f"{name}{content}".encode()
    except BackendError as error:
        assert 0 < len(str(error)) < 1000
    finally:
        await http.close()
        server.close()
