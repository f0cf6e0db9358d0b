"""The listeners of a fake Realtime Database: connections that get an event for each change below their path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from agent.fakes.rtdb import tree
from agent.fakes.rtdb.tree import shown
from agent.fakes.rtdb.write import TreeWrite


class _Listener(NamedTuple):
    """One connection. `events` are the server-sent events that it still gets; None ends it."""

    path: list[str]
    events: asyncio.Queue[bytes | None]


class Listeners:
    """All listeners of one database.

    `root` returns its tree as it is now, `keep_alive` how often listeners get an event if nothing changes, in seconds.
    """

    def __init__(self, root: Callable[[], Any], keep_alive: Callable[[], float]) -> None:
        self._root = root
        self._keep_alive = keep_alive
        self._all: list[_Listener] = []

    def end(self) -> None:
        """End every connection."""
        for listener in self._all:
            listener.events.put_nowait(None)

    def send(self, name: str, data: object) -> None:
        """Send an event to every listener."""
        for listener in self._all:
            listener.events.put_nowait(_event(name, data))

    def committed(self, write: TreeWrite, before: Any) -> None:
        """Send the change of a write to the listeners that it concerns; `before` is the tree before it."""
        for listener in self._all:
            depth = len(listener.path)
            if write.path[:depth] == listener.path:
                below = "/" + "/".join(write.path[depth:])
                data = write.data if write.kind == "patch" else shown(write.data)
                listener.events.put_nowait(_event(write.kind, {"path": below, "data": data}))
            elif tree.get(before, listener.path) != tree.get(write.after, listener.path):
                listener.events.put_nowait(_whole(write.after, listener.path))

    async def serve(self, request: web.Request, path: list[str]) -> web.StreamResponse:
        """Serve a listener of `path` until it goes or is ended; its first event is the value there."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        listener = _Listener(path, asyncio.Queue())
        listener.events.put_nowait(_whole(self._root(), path))
        self._all.append(listener)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._keep_alive()):
                        event = await listener.events.get()
                except TimeoutError:
                    event = _event("keep-alive", None)
                if event is None:
                    return response
                await response.write(event)
        except ConnectionError:
            return response
        finally:
            self._all.remove(listener)


def _whole(root: Any, path: list[str]) -> bytes:
    return _event("put", {"path": "/", "data": shown(tree.get(root, path))})


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
