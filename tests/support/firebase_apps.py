"""Applications that read a flag with Google's own clients, each as its documentation shows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from unittest.mock import patch

from agent.fakes.firestore.server import FakeFirestore
from agent.fakes.remote_config.server import FakeRemoteConfig
from agent.fakes.rtdb.server import FakeRealtimeDatabase
from agent.fakes.server import Fake


class Application(Protocol):
    """`on` is the last value of the flag that the client received."""

    on: bool

    async def close(self) -> None: ...


class FirestoreApp:
    """firebase_admin.firestore's listener on the document of the flag."""

    def __init__(self, fake: FakeFirestore, flag: str) -> None:
        import firebase_admin
        from firebase_admin import firestore
        from google.auth.credentials import AnonymousCredentials

        # A credential for a client that requires one, although the fake does not.
        nobody = firebase_admin.credentials.Base()
        nobody.get_credential = AnonymousCredentials
        self._app = firebase_admin.initialize_app(nobody, {"projectId": "shop"}, name=f"app-{fake.port}")
        with patch.dict(os.environ, FIRESTORE_EMULATOR_HOST=f"127.0.0.1:{fake.port}"):
            self._client = firestore.client(self._app)
        self.on = False
        self._watch = self._client.collection("flags").document(flag).on_snapshot(self._changed)

    def _changed(self, documents: Any, changes: Any, read_time: Any) -> None:
        self.on = documents[0].get("defaultVariant") == "on"

    async def close(self) -> None:
        import firebase_admin

        await asyncio.to_thread(self._watch.unsubscribe)
        self._client.close()
        firebase_admin.delete_app(self._app)


class RealtimeDatabaseApp:
    """firebase_admin.db's listener on the node of the flag."""

    def __init__(self, fake: FakeRealtimeDatabase, flag: str) -> None:
        import firebase_admin
        from firebase_admin import db

        self._fake = fake
        url = f"http://127.0.0.1:{fake.port}?ns=shop"
        self._app = firebase_admin.initialize_app(options={"databaseURL": url}, name=f"app-{fake.port}")
        self._node = db.reference(f"flags/{flag}", self._app)
        self.on = False
        self._listener = self._node.listen(self._changed)

    def _changed(self, event: Any) -> None:
        self.on = self._node.get()["defaultVariant"] == "on"

    async def close(self) -> None:
        import firebase_admin

        # `close` alone would close the connection while its thread reads, and the thread would raise.
        self._listener._sse.should_connect, self._listener._sse.retry = False, 0
        self._fake.end_streams()
        await asyncio.to_thread(self._listener._thread.join)
        self._listener.close()
        firebase_admin.delete_app(self._app)


_POLLING = """
import asyncio, sys
import firebase_admin
from firebase_admin import remote_config
from google.auth.credentials import AnonymousCredentials

class Token(AnonymousCredentials):
    def before_request(self, request, method, url, headers):
        headers["Authorization"] = "Bearer owner"

class Credential(firebase_admin.credentials.Base):
    def get_credential(self):
        return Token()

async def main():
    server, parameter = sys.argv[1:]
    app = firebase_admin.initialize_app(Credential(), {"projectId": "flipback-fake"})
    template = remote_config.init_server_template(app=app)
    template._rc_service._client._base_url = server
    while True:
        await template.load()
        print(int(template.evaluate({"randomization_id": "user"}).get_boolean(parameter)), flush=True)
        await asyncio.sleep(0.1)

asyncio.run(main())
"""


class RemoteConfigApp:
    """firebase_admin.remote_config's server template, loaded every 0.1 s, because servers can only poll.

    It runs in a separate process, because importing the client configures the root logger.
    """

    def __init__(self, fake: FakeRemoteConfig, flag: str) -> None:
        server = f"http://127.0.0.1:{fake.port}"
        command = [sys.executable, "-c", _POLLING, server, flag.replace("-", "_")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.on = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.on = line.strip() == b"1"

    async def close(self) -> None:
        self._process.kill()
        await asyncio.to_thread(self._reader.join)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass(frozen=True)
class App:
    """How to make a fake of a flag system, an application that reads it, and a backend's settings."""

    fake: Callable[[], Fake]
    application: Callable[[Any, str], Application]
    settings: Mapping[str, Any]


APPS: dict[str, App] = {
    "firestore": App(FakeFirestore, FirestoreApp, {"project": "shop"}),
    "remote-config": App(FakeRemoteConfig, RemoteConfigApp, {"project": "flipback-fake", "template": "server"}),
    "rtdb": App(FakeRealtimeDatabase, RealtimeDatabaseApp, {"url": "https://shop.firebaseio.com"}),
}
