"""An endless answer does not fill the memory: it becomes an error that says so, and the connection is closed."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.backends import bounded_session, http
from agent.backends.google import GoogleToken
from agent.backends.http import MOST_BYTES, Http, HttpAnswer
from agent.backends.rtdb.stream import Stream
from agent.errors import Auth, BackendError, Invalid, Transient

ENDLESS = 20 * MOST_BYTES
"""Bytes after which the test's server ends its answer nevertheless."""


@asynccontextmanager
async def server(head: bytes, piece: bytes = b"x" * 2**16, most: int = ENDLESS) -> AsyncIterator[tuple[str, list[int]]]:
    """Answer each request with `head` and a body of pieces; yield the address and the bytes sent of each answer."""
    sent: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sent.append(0)
        number = len(sent) - 1
        writer.write(head + b"\r\n\r\n")
        try:
            while sent[number] < most:
                writer.write(piece)
                await writer.drain()
                sent[number] += len(piece)
            writer.close()
        except ConnectionError:
            pass

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", sent
    finally:
        listening.close()


@pytest.mark.parametrize(("method", "kind"), [("GET", Invalid), ("PUT", Transient)])
async def test_an_answer_that_is_too_large_is_an_error_and_a_write_may_have_landed(
    method: str, kind: type[BackendError]
) -> None:
    client = Http("the server")
    async with server(b"HTTP/1.1 200 OK") as (url, sent):
        with pytest.raises(kind, match=f"the server: the answer to {method} has more than {MOST_BYTES:,} bytes"):
            await client.request(method, url, deadline=time.monotonic() + 60)
        assert sent[0] < 2 * MOST_BYTES
    await client.close()


async def test_a_small_answer_that_unpacks_to_a_large_one_is_an_error_too() -> None:
    packed = gzip.compress(b" " * (4 * MOST_BYTES))
    client = Http("it")
    async with server(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d" % len(packed), packed, 1) as (
        url,
        _,
    ):
        with pytest.raises(BackendError):
            await client.request("GET", url, deadline=time.monotonic() + 60)
    await client.close()


async def test_an_answer_of_the_largest_size_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 1000)
    client = Http("it")
    for size, taken in ((1000, True), (1001, False)):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d" % size
        async with server(head, b"x" * size, 1) as (url, _):
            request = client.request("GET", url, deadline=time.monotonic() + 60)
            if taken:
                assert len((await request).body) == size
            else:
                with pytest.raises(Invalid):
                    await request
    await client.close()


async def test_an_error_with_an_endless_page_keeps_its_meaning() -> None:
    client = Http("it")
    async with server(b"HTTP/1.1 401 No") as (url, sent):
        with pytest.raises(Auth):
            await client.request("GET", url, deadline=time.monotonic() + 60)
        assert sent[0] < MOST_BYTES
    await client.close()


async def test_a_stream_that_is_refused_with_an_endless_page_is_refused() -> None:
    refused: list[HttpAnswer] = []
    client = Http("it")

    def refuse(answer: HttpAnswer) -> BackendError:
        refused.append(answer)
        return Invalid("no stream")

    async with server(b"HTTP/1.1 403 No") as (url, sent):
        listening = asyncio.create_task(Stream(client, url, refuse).listen(lambda keys: None))
        async with asyncio.timeout(60):
            while not refused:
                await asyncio.sleep(0.01)
        listening.cancel()
        await asyncio.wait([listening])
        assert len(refused[0].body) < MOST_BYTES
        assert sent[0] < MOST_BYTES
    await client.close()


async def test_a_token_service_with_an_endless_answer_gives_no_token(tmp_path: Path) -> None:
    sent = 0

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal sent
            self.send_response(200)
            self.end_headers()
            try:
                while sent < ENDLESS:
                    sent += self.wfile.write(b" " * 2**16)
            except ConnectionError:
                pass

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    service = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = {
        "type": "service_account",
        "client_email": "flipback@example.com",
        "token_uri": f"http://127.0.0.1:{service.server_port}/token",
        "private_key": pem.decode(),
    }
    file = tmp_path / "key.json"
    file.write_text(json.dumps(key))
    file.chmod(0o600)
    token = GoogleToken(file, ["scope"])
    try:
        with pytest.raises(Transient, match=f"more than {bounded_session.MOST_BYTES:,} bytes"):
            await token.headers(time.monotonic() + 60)
        assert sent < MOST_BYTES
    finally:
        await token.close()
        service.shutdown()
        service.server_close()
