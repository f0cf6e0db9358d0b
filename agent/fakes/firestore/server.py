"""A Cloud Firestore on loopback: the real protocol with preconditions, atomic commits, transactions and listeners.

Applications and tools reach it with `FIRESTORE_EMULATOR_HOST=127.0.0.1:PORT`, flipback with `emulator: 127.0.0.1:PORT`.
All projects and databases that they name share the same documents.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud.firestore_v1 import types

from agent.backends.firestore.document import plain, value
from agent.errors import FlipbackError
from agent.fakes.faults import FakeFaults
from agent.fakes.firestore.query import Selection
from agent.fakes.firestore.rpc import Service
from agent.fakes.firestore.store import Document, Refused, Store
from agent.fakes.server import LOOPBACK

_THREADS = 64
"""Calls at one time: each listener and each hanging call occupies a thread."""

_OPTIONS = [
    # By default two servers could share the port, and each would get some of the requests.
    ("grpc.so_reuseport", 0),
    # Google's servers accept a keepalive ping every 30 s; by default a gRPC server closes the connection on it.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]

Write = types.Write.pb()


class FakeFirestore:
    """A Firestore with its documents in memory, also while it is stopped. Flags are the documents of `collection`.

    `writes` counts the commits of clients that changed a flag.
    """

    def __init__(self, collection: str = "flags") -> None:
        self.faults = FakeFaults()
        self.port = 0
        self.writes = 0
        self._flags = Selection(collection, 0, None)
        self._store = Store()
        self._server: Any = None
        self._threads: ThreadPoolExecutor | None = None

    async def start(self, port: int = 0) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fake-firestore")
        self._server = grpc.server(self._threads, options=_OPTIONS)
        self._server.add_generic_rpc_handlers((Service(self._store, self.faults, self._committed).handler(),))
        try:
            self.port = self._server.add_insecure_port(f"{LOOPBACK}:{port}")
        except RuntimeError as error:
            raise FlipbackError(f"cannot listen on {LOOPBACK}:{port}: is it taken?") from error
        self._store.forget()
        self._server.start()

    async def stop(self) -> None:
        if self._server is None or self._threads is None:
            return
        await asyncio.to_thread(self._server.stop(None).wait)
        self._threads.shutdown(wait=False)
        self._server = None

    def put(self, flag: str, variant: str) -> None:
        held = self.flags().get(flag, {})
        new = {} if held else {"variants": {"on": True, "off": False}}
        self.edit(flag, {**new, "state": "ENABLED", "defaultVariant": variant, "targeting": {}})

    def edit(self, flag: str, fields: dict[str, Any]) -> None:
        """Set fields of a flag's document to JSON values, as a person would; create the document if it is missing."""
        document = Document(name=f"/documents/{self._flags.collection}/{flag}")
        for name, content in fields.items():
            document.fields[name].CopyFrom(value(content))
        try:
            self._store.commit([Write(update=document, update_mask={"field_paths": list(fields)})])
        except Refused as error:
            raise FlipbackError(f"Firestore would not take the flag {flag!r}: {error}") from error

    def flags(self) -> dict[str, Any]:
        return {path.rpartition("/")[2]: members for path, members in self._all() if self._flags.holds(path)}

    def documents(self) -> dict[str, Any]:
        """Return all documents by their path, with text for types that JSON does not have."""
        return dict(self._all())

    def _all(self) -> list[tuple[str, Any]]:
        held = sorted(self._store.documents.items())
        return [(path, {name: plain(document.fields[name]) for name in document.fields}) for path, document in held]

    def _committed(self, changed: set[str]) -> None:
        self.writes += any(map(self._flags.holds, changed))
