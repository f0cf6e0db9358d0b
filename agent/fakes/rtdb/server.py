"""A fake Realtime Database: its REST interface on loopback, with ETags, server-sent events and security rules.

What it answers follows https://firebase.google.com/docs/reference/rest/database, and is held to the real client,
firebase_admin.db. Left out: queries, priorities, tokens (anybody is the administrator), name spaces (there is one).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from aiohttp import web

from agent.fakes.faults import FakeFault, FakeFaults, On
from agent.fakes.rtdb import tree
from agent.fakes.rtdb.tree import BadData, etag, shown, stored
from agent.fakes.server import listen

_WRITES = ("PUT", "PATCH", "POST", "DELETE")
_REMEMBERED = 1000
"""Requests that are kept in `requests`."""


class Request(NamedTuple):
    """A request as it came. `stream` tells a listener from a read."""

    method: str
    path: str
    query: dict[str, str]
    stream: bool


class Rules(NamedTuple):
    """Security rules of the whole database: the user ids that may read and write. An administrator passes them by."""

    read: frozenset[str]
    write: frozenset[str]


class _Listener(NamedTuple):
    path: list[str]
    events: asyncio.Queue[bytes | None]


class _Write(NamedTuple):
    """A write that is allowed: the whole tree after it, and what is answered and told."""

    after: Any
    body: Any
    kind: str
    path: list[str]
    data: Any


class FakeRealtimeDatabase:
    """A database of which `path` is the flags' parent. `keep_alive` is how often listeners hear something, in seconds.

    `rules` and `keep_alive` may be changed while it runs. Faults on reads meet those who begin to listen as well.
    """

    def __init__(self, path: str = "flags", keep_alive: float = 30.0) -> None:
        self.faults = FakeFaults()
        self.port = 0
        self.writes = 0
        self.keep_alive = keep_alive
        self.rules: Rules | None = None
        self.requests: deque[Request] = deque(maxlen=_REMEMBERED)
        self._flags = [name for name in path.split("/") if name]
        self._root: Any = None
        self._before: Any = None
        self._listeners: list[_Listener] = []
        self._runner: web.AppRunner | None = None
        self._stopped = asyncio.Event()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; 0 takes a free port. The data of an earlier time is still there."""
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._stopped = asyncio.Event()
        self._runner, self.port = await listen(app, port)

    async def stop(self) -> None:
        self._stopped.set()
        self.end_streams()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def put(self, flag: str, variant: str) -> None:
        """A person gives `variant` ("on" or "off") to everyone; the flag is made if it is not there."""
        path = [*self._flags, flag]
        old = shown(tree.get(self._root, path)) or {"variants": {"on": True, "off": False}}
        self.set(path, {**old, "state": "ENABLED", "defaultVariant": variant, "targeting": None})

    def flags(self) -> dict[str, Any]:
        """All flags as they are stored."""
        found = shown(tree.get(self._root, self._flags))
        return found if isinstance(found, dict) else {}

    def get(self, path: str) -> Any:
        """What is stored at a path."""
        return shown(tree.get(self._root, _names(path)))

    def set(self, path: str | list[str], value: Any) -> None:
        """A person writes in the console. Raises BadData where the database could not hold it."""
        names = _names(path) if isinstance(path, str) else path
        if not all(map(tree.is_key, names)):
            raise BadData(f"/{'/'.join(names)}: a key has none of . $ # [ ] / and no control characters")
        kept = stored(value, _now_ms())
        self._commit(_Write(tree.put(self._root, names, kept), value, "put", names, kept))
        if not self.writes:
            # There is no write yet that a lie could leave out.
            self._before = self._root

    def end_streams(self) -> None:
        """End every listener's connection, as a server that is restarted does."""
        for listener in self._listeners:
            listener.events.put_nowait(None)

    def tell(self, name: str, data: object) -> None:
        """Send an event to every listener, such as ("auth_revoked", "credential is no longer valid")."""
        for listener in self._listeners:
            listener.events.put_nowait(_event(name, data))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        method = request.headers.get("X-HTTP-Method-Override", request.method).upper()
        stream = method == "GET" and "text/event-stream" in request.headers.get("Accept", "")
        self.requests.append(Request(method, request.path, dict(request.query), stream))
        if method not in ("GET", *_WRITES):
            return _error(405, "Method not allowed")
        if not request.path.endswith(".json"):
            return _error(404, "append .json to your request URI to use the REST API.")
        # Split before it is decoded: %2F is no separator.
        path = [unquote(name) for name in request.raw_path.partition("?")[0].removesuffix(".json").split("/") if name]
        if not all(map(tree.is_key, path)):
            return _error(400, "Invalid path: Invalid token in path")
        on: On = "read" if method == "GET" else "write"
        fault = self.faults.take(on)
        if fault is not None:
            return await self._faulty(request, method, path, stream, fault)
        if stream:
            return await self._stream(request, path)
        return await self._answer(request, method, path)

    async def _faulty(
        self, request: web.Request, method: str, path: list[str], stream: bool, fault: FakeFault
    ) -> web.StreamResponse:
        if fault.kind in ("commit-then-fail", "commit-then-hang") or (fault.kind == "drop" and method != "GET"):
            await self._answer(request, method, path)
        if fault.kind in ("status", "commit-then-fail"):
            headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            return _error(fault.status, "Unauthorized request." if fault.status == 401 else "injected", headers)
        if fault.kind in ("hang", "commit-then-hang"):
            await self._stopped.wait()
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        if fault.kind in ("drop", "hang", "commit-then-hang"):
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        if stream:
            return await self._stream(request, path)
        return await self._answer(request, method, path, lie=fault.kind == "lie")

    async def _answer(self, request: web.Request, method: str, path: list[str], lie: bool = False) -> web.Response:
        if not self._allowed(request, method):
            return _error(401, "Permission denied")
        if method == "GET":
            return self._read(request, tree.get(self._before if lie else self._root, path))
        body = await request.read()
        now = tree.get(self._root, path)
        expected = request.headers.get("if-match")
        if expected is not None:
            if method == "PATCH":
                return _error(400, "ETag is not supported for PATCH requests")
            if expected != etag(now):
                return _json(shown(now), 412, {"ETag": etag(now)})
        try:
            write = self._write(method, path, None if method == "DELETE" else msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _error(400, "Invalid data; couldn't parse JSON object, array, or value.")
        except BadData as error:
            return _error(400, str(error))
        if not lie:
            self.writes += 1
            self._commit(write)
        told = expected is not None or _wants_etag(request)
        headers = {"ETag": etag(tree.get(write.after, path))} if told else {}
        if request.query.get("print") == "silent":
            return web.Response(status=204, headers=headers)
        return _json(write.body, headers=headers)

    def _read(self, request: web.Request, value: Any) -> web.Response:
        known = request.headers.get("if-none-match")
        headers = {"ETag": etag(value)} if known is not None or _wants_etag(request) else {}
        if known is not None and known == etag(value):
            return web.Response(status=304, headers=headers)
        if request.query.get("shallow") == "true" and isinstance(value, dict):
            return _json(dict.fromkeys(sorted(value), True), headers=headers)
        return _json(shown(value), headers=headers)

    def _write(self, method: str, path: list[str], value: Any) -> _Write:
        """What a write comes to. Raises BadData where the database cannot hold it."""
        now = _now_ms()
        if method == "PATCH":
            if not isinstance(value, dict):
                raise BadData("Invalid data; couldn't parse JSON object.")
            after, changes = self._root, {}
            for name, item in value.items():
                if not name.strip("/") or not all(map(tree.is_key, _names(name))):
                    raise BadData("Invalid path: Invalid token in path")
                changes[name] = stored(item, now)
                after = tree.put(after, [*path, *_names(name)], changes[name])
            return _Write(after, {name: shown(item) for name, item in changes.items()}, "patch", path, changes)
        kept = stored(value, now)
        if method == "POST":
            # Like the real ones it sorts by time; what follows the time keeps two of one millisecond apart.
            name = f"-N{now:012x}{secrets.token_hex(3)}"
            made = [*path, name]
            return _Write(tree.put(self._root, made, kept), {"name": name}, "put", made, kept)
        return _Write(tree.put(self._root, path, kept), shown(kept), "put", path, kept)

    def _commit(self, write: _Write) -> None:
        self._before, self._root = self._root, write.after
        for listener in self._listeners:
            depth = len(listener.path)
            if write.path[:depth] == listener.path:
                below = "/" + "/".join(write.path[depth:])
                data = write.data if write.kind == "patch" else shown(write.data)
                listener.events.put_nowait(_event(write.kind, {"path": below, "data": data}))
            elif tree.get(self._before, listener.path) != tree.get(self._root, listener.path):
                listener.events.put_nowait(self._whole(listener.path))

    async def _stream(self, request: web.Request, path: list[str]) -> web.StreamResponse:
        if not self._allowed(request, "GET"):
            return _error(401, "Permission denied")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        listener = _Listener(path, asyncio.Queue())
        listener.events.put_nowait(self._whole(path))
        self._listeners.append(listener)
        try:
            while True:
                try:
                    async with asyncio.timeout(self.keep_alive):
                        event = await listener.events.get()
                except TimeoutError:
                    event = _event("keep-alive", None)
                if event is None:
                    return response
                await response.write(event)
        except ConnectionError:
            return response
        finally:
            self._listeners.remove(listener)

    def _whole(self, path: list[str]) -> bytes:
        return _event("put", {"path": "/", "data": shown(tree.get(self._root, path))})

    def _allowed(self, request: web.Request, method: str) -> bool:
        """What the rules say of the user that the administrator asks to be taken for."""
        override = request.query.get("auth_variable_override")
        if self.rules is None or override is None:
            return True
        try:
            user = msgspec.json.decode(override, type=dict[str, Any] | None)
        except msgspec.DecodeError:
            return False
        allowed = self.rules.read if method == "GET" else self.rules.write
        return user is not None and user.get("uid") in allowed


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _wants_etag(request: web.Request) -> bool:
    return request.headers.get("X-Firebase-ETag") == "true"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json({"error": text}, status, headers)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
