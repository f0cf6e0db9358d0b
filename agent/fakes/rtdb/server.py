"""A fake Realtime Database: its REST interface on loopback, with ETags, server-sent events and security rules.

Its answers follow https://firebase.google.com/docs/reference/rest/database, and are tested with the real client,
firebase_admin.db. It has no queries, priorities and tokens (every client is the administrator), and one name space.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from aiohttp import web

from agent.fakes.faults import FakeFault, FakeFaults, On
from agent.fakes.rtdb import tree
from agent.fakes.rtdb.listeners import Listeners
from agent.fakes.rtdb.tree import BadData, etag, shown, stored
from agent.fakes.rtdb.write import TreeWrite, make_write, names, now_ms
from agent.fakes.server import listen

_WRITES = ("PUT", "PATCH", "POST", "DELETE")
_REMEMBERED = 1000
"""How many of the last requests are kept in `requests`."""


class Request(NamedTuple):
    """A request as it was received. `stream`: it is a listener, not a read."""

    method: str
    path: str
    query: dict[str, str]
    stream: bool


class Rules(NamedTuple):
    """Security rules of the whole database: the user ids that may read and write. Administrators bypass them."""

    read: frozenset[str]
    write: frozenset[str]


class FakeRealtimeDatabase:
    """A database whose flags are the children of `path`.

    `keep_alive` is how often listeners get an event if nothing changes, in seconds. It and `rules` may be changed while
    the database runs. Faults on reads apply to new listeners too.
    """

    def __init__(self, path: str = "flags", keep_alive: float = 30.0) -> None:
        self.faults = FakeFaults()
        self.port = 0
        self.writes = 0
        self.keep_alive = keep_alive
        self.rules: Rules | None = None
        self.requests: deque[Request] = deque(maxlen=_REMEMBERED)
        self._flags = names(path)
        self._root: Any = None
        self._before: Any = None
        self._listeners = Listeners(lambda: self._root, lambda: self.keep_alive)
        self._runner: web.AppRunner | None = None
        self._stopped = asyncio.Event()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; 0 takes a free port. Data survives a stop and a start."""
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
        """Give `variant` ("on" or "off") to every subject, as a person would; create the flag if it is missing."""
        path = [*self._flags, flag]
        old = shown(tree.get(self._root, path)) or {"variants": {"on": True, "off": False}}
        self.set(path, {**old, "state": "ENABLED", "defaultVariant": variant, "targeting": None})

    def flags(self) -> dict[str, Any]:
        """Return all flags as they are stored."""
        found = shown(tree.get(self._root, self._flags))
        return found if isinstance(found, dict) else {}

    def get(self, path: str) -> Any:
        """Return the value at a path."""
        return shown(tree.get(self._root, names(path)))

    def set(self, path: str | list[str], value: Any) -> None:
        """Write a value, as a person in the console would. Raises BadData if the database cannot store it."""
        keys = names(path) if isinstance(path, str) else path
        if not all(map(tree.is_key, keys)):
            raise BadData(f"/{'/'.join(keys)}: a key has none of . $ # [ ] / and no control characters")
        kept = stored(value, now_ms())
        self._commit(TreeWrite(tree.put(self._root, keys, kept), value, "put", keys, kept))
        if not self.writes:
            # No client has written anything yet that a read with the fault `lie` could leave out.
            self._before = self._root

    def end_streams(self) -> None:
        """End every listener's connection, as a restart of the server does."""
        self._listeners.end()

    def send_event(self, name: str, data: object) -> None:
        """Send an event to every listener, such as ("auth_revoked", "credential is no longer valid")."""
        self._listeners.send(name, data)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request as the next fault says, if one waits; a malformed request uses up no fault."""
        method = request.headers.get("X-HTTP-Method-Override", request.method).upper()
        stream = method == "GET" and "text/event-stream" in request.headers.get("Accept", "")
        self.requests.append(Request(method, request.path, dict(request.query), stream))
        if method not in ("GET", *_WRITES):
            return _error(405, "Method not allowed")
        if not request.path.endswith(".json"):
            return _error(404, "append .json to your request URI to use the REST API.")
        # Split before decoding: %2F is no separator.
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
            write = make_write(self._root, method, path, None if method == "DELETE" else msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _error(400, "Invalid data; couldn't parse JSON object, array, or value.")
        except BadData as error:
            return _error(400, str(error))
        if not lie:
            self.writes += 1
            self._commit(write)
        with_etag = expected is not None or _wants_etag(request)
        headers = {"ETag": etag(tree.get(write.after, path))} if with_etag else {}
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

    def _commit(self, write: TreeWrite) -> None:
        self._before, self._root = self._root, write.after
        self._listeners.committed(write, self._before)

    async def _stream(self, request: web.Request, path: list[str]) -> web.StreamResponse:
        if not self._allowed(request, "GET"):
            return _error(401, "Permission denied")
        return await self._listeners.serve(request, path)

    def _allowed(self, request: web.Request, method: str) -> bool:
        """Do the rules allow the request to the user as whom the administrator asks to be treated?"""
        override = request.query.get("auth_variable_override")
        if self.rules is None or override is None:
            return True
        try:
            user = msgspec.json.decode(override, type=dict[str, Any] | None)
        except msgspec.DecodeError:
            return False
        allowed = self.rules.read if method == "GET" else self.rules.write
        return user is not None and user.get("uid") in allowed


def _wants_etag(request: web.Request) -> bool:
    return request.headers.get("X-Firebase-ETag") == "true"


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json({"error": text}, status, headers)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
