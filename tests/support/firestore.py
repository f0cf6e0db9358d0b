"""A fake Firestore with two flags, backends on it, and Google's own client as an application uses it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from agent.backends import settings
from agent.backends.contract import FlagRef, Outcome, Snapshot, Verdict
from agent.backends.firestore.backend import FirestoreBackend
from agent.fakes.firestore.server import FakeFirestore

REF, OTHER = FlagRef("new-checkout", "production"), FlagRef("other", "production")
PATIENCE_S = 60.0


@asynccontextmanager
async def serving() -> AsyncIterator[FakeFirestore]:
    made = FakeFirestore()
    made.put(REF.flag, "on")
    made.put(OTHER.flag, "on")
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def working(fake: FakeFirestore) -> AsyncIterator[FirestoreBackend]:
    made = at(fake.port)
    yield made
    await made.close()


@contextmanager
def application(fake: FakeFirestore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{fake.port}")
    made = firestore.Client(project="shop", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    yield made
    made.close()  # type: ignore[no-untyped-call]


def at(port: int, **fields: Any) -> FirestoreBackend:
    return FirestoreBackend(settings.Firestore(project="shop", emulator=f"127.0.0.1:{port}", **fields))


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


async def snapshot(backend: FirestoreBackend) -> Snapshot:
    return await backend.snapshot(REF, deadline=soon())


async def apply(backend: FirestoreBackend, expect: str, op_id: str = "op-1") -> Outcome:
    return (await backend.apply(REF, "off", expect=expect, op_id=op_id, deadline=soon())).outcome


async def verdict(backend: FirestoreBackend, snap: Snapshot, op_id: str = "op-1") -> Verdict:
    return (await backend.verify(snap, "off", op_id=op_id, deadline=soon())).verdict
