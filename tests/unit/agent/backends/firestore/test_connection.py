"""Firestore: its settings, error statuses, servers that hang or cannot be reached, and health checks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.backends import make, settings
from agent.backends.contract import FlagRef, Outcome, Verdict
from agent.backends.firestore.backend import FirestoreBackend
from agent.backends.google import EMULATORS
from agent.errors import (
    Auth,
    BackendError,
    ConfigError,
    Conflict,
    Invalid,
    NotFound,
    Permission,
    Throttled,
    Timeout,
    Transient,
    Unsent,
)
from agent.fakes.firestore import store as firestore_store
from agent.fakes.firestore.server import FakeFirestore
from tests.support.firestore import OTHER, PATIENCE_S, REF, apply, at, serving, snapshot, soon, verdict, working


@pytest.fixture
async def fake() -> AsyncIterator[FakeFirestore]:
    async with serving() as made:
        yield made


@pytest.fixture
async def backend(fake: FakeFirestore) -> AsyncIterator[FirestoreBackend]:
    async with working(fake) as made:
        yield made


# Settings


@pytest.mark.parametrize("path", ["flags/new", "", "/flags", "a//b"])
def test_what_is_no_collection_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="collection"):
        at(1, collection=path)


@pytest.mark.parametrize("address", ["firestore.example.org:443", "10.0.0.1:8080", "127.0.0.1", "localhost:http", ""])
def test_an_emulator_that_is_not_on_loopback_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        FirestoreBackend(settings.Firestore(project="shop", emulator=address))


@pytest.mark.parametrize("variable", EMULATORS)
def test_a_variable_that_would_redirect_writes_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:8080")
    with pytest.raises(ConfigError, match=variable):
        make(settings.Firestore(project="shop"))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text("{}")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        FirestoreBackend(settings.Firestore(project="shop", credentials=path))


# Errors and deadlines


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Invalid),
        (401, Auth),
        (403, Permission),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (429, Throttled),
        (500, Transient),
        (503, Transient),
        (504, Timeout),
    ],
)
async def test_a_status_is_the_error_of_its_meaning(
    fake: FakeFirestore, backend: FirestoreBackend, status: int, error: type[BackendError]
) -> None:
    version = (await snapshot(backend)).state.version
    fake.faults.add(f"write:status={status},times=0")
    with pytest.raises(error):
        await apply(backend, version)
    fake.faults.add(f"read:status={status}")
    with pytest.raises(error):
        await backend.read(REF, deadline=soon())


async def test_a_throttled_write_says_how_long_to_wait(fake: FakeFirestore, backend: FirestoreBackend) -> None:
    version = (await snapshot(backend)).state.version
    fake.faults.add("write:status=429,retry-after=1.5")
    with pytest.raises(Throttled) as refusal:
        await apply(backend, version)
    assert refusal.value.retry_after == 1.5


@pytest.mark.parametrize("fault", ["read:hang", "write:hang", "write:commit-then-hang"])
async def test_a_call_ends_by_its_deadline_while_the_server_hangs(
    fake: FakeFirestore, backend: FirestoreBackend, fault: str
) -> None:
    version = (await snapshot(backend)).state.version
    fake.faults.add(fault)
    # If the read before the write hangs, it is certain that nothing was written.
    expected, seconds = ((Unsent, Timeout), 0.3) if fault.startswith("read") else (Timeout, 2.0)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(expected):
            await backend.apply(REF, "off", expect=version, op_id="op-1", deadline=soon(seconds))
    assert await apply(backend, version) in (Outcome.APPLIED, Outcome.DUPLICATE)
    assert fake.writes == 1


async def test_more_calls_than_threads_end_by_their_deadline_and_leave_no_write_behind(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    version = (await snapshot(backend)).state.version
    fake.faults.add("read:hang,times=8")
    calls = [
        backend.apply(REF, "off", expect=version, op_id=f"op-{n}", deadline=soon(0.3 if n < 8 else 0.2))
        for n in range(20)
    ]
    async with asyncio.timeout(PATIENCE_S):
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} <= {Timeout, Unsent}
    assert await verdict(backend, await snapshot(backend)) is Verdict.UNTOUCHED
    assert fake.writes == 0


async def test_a_server_that_takes_connections_and_says_nothing_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        backend = at(silent.getsockname()[1])
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises((Timeout, Transient)):
                await backend.read(REF, deadline=soon(0.3))
        await backend.close()


async def test_after_an_outage_the_same_backend_flips_again(fake: FakeFirestore, backend: FirestoreBackend) -> None:
    version = (await snapshot(backend)).state.version
    port = fake.port
    await fake.stop()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises((Transient, Timeout)):
            await backend.read(REF, deadline=soon(0.5))
        await fake.start(port)
        while True:
            with contextlib.suppress(Transient, Timeout):
                assert await apply(backend, version) is Outcome.APPLIED
                break
            await asyncio.sleep(0.02)


async def test_closing_ends_the_calls_that_hang(fake: FakeFirestore) -> None:
    backend = at(fake.port)
    fake.faults.add("read:hang")
    hanging = asyncio.create_task(backend.read(REF, deadline=soon(60)))
    async with asyncio.timeout(PATIENCE_S):
        while fake.faults.waiting():
            await asyncio.sleep(0.01)
        await backend.close()
        with pytest.raises(Transient):
            await hanging


class Tokens:
    """Credentials whose first token has been revoked."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def headers(self, deadline: float, renew: bool = False) -> dict[str, str]:
        self.asked.append(renew)
        return {"Authorization": "Bearer secret-token"}

    async def close(self) -> None: ...


async def test_a_token_that_was_withdrawn_is_renewed_once(
    fake: FakeFirestore, backend: FirestoreBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens()
    monkeypatch.setattr(backend._calls, "_token", tokens)
    fake.faults.add("read:status=401")
    assert (await backend.read(REF, deadline=soon())).variant == "on"
    assert tokens.asked == [False, True]
    fake.faults.add("read:status=401,times=0")
    with pytest.raises(Auth) as refusal:
        await backend.read(REF, deadline=soon())
    assert "secret-token" not in str(refusal.value) + repr(refusal.value.__context__)
    assert tokens.asked == [False, True, False, True]


async def test_each_call_says_who_asks_and_for_which_database(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    class Recorder(grpc.GenericRpcHandler):
        def service(self, details: Any) -> None:
            seen.append(dict(details.invocation_metadata))

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Recorder()])
    backend = at(server.add_insecure_port("127.0.0.1:0"), database="berlin")
    server.start()
    monkeypatch.setattr(backend._calls, "_token", Tokens())
    with pytest.raises(Invalid):
        await backend.read(REF, deadline=soon())
    await backend.close()
    await asyncio.to_thread(server.stop(None).wait)
    (headers,) = seen
    assert headers["authorization"] == "Bearer secret-token"
    assert headers["google-cloud-resource-prefix"] == "projects/shop/databases/berlin"
    assert headers["x-goog-request-params"] == "database=projects%2Fshop%2Fdatabases%2Fberlin"


# Health


async def test_health_names_the_role_that_is_missing_for_reading(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    fake.faults.add("read:status=403")
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "roles/datastore.user" in problem


async def test_health_names_the_role_that_is_missing_for_writing(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    fake.faults.add("write:status=403")
    before = fake.documents()
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "not written" in problem
    assert "roles/datastore.user" in problem
    assert (await backend.health([(REF, "off")], deadline=soon())).ok
    assert fake.documents() == before


async def test_health_names_each_flag_that_cannot_be_flipped(fake: FakeFirestore, backend: FirestoreBackend) -> None:
    fake.edit(OTHER.flag, {"state": "SOMETHING", "variants": {}})
    bad, gone = FlagRef("a/b", "production"), FlagRef("gone", "production")
    problems = (await backend.health([(ref, "off") for ref in (bad, REF, OTHER, gone)], deadline=soon())).problems
    assert [name in problem for name, problem in zip(("a/b", "other", "gone"), problems, strict=True)] == [True] * 3


async def test_health_renews_a_token_that_was_withdrawn(
    fake: FakeFirestore, backend: FirestoreBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend._calls, "_token", Tokens())
    fake.faults.add("read:status=401")
    assert (await backend.health([(REF, "off")], deadline=soon())).ok
    fake.faults.add("read:status=401,times=0")
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "credentials" in problem


async def test_health_finds_a_server_that_compares_nothing(
    fake: FakeFirestore, backend: FirestoreBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fake.documents()
    monkeypatch.setattr(firestore_store, "_check_precondition", lambda *_: None)
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "precondition" in problem
    assert fake.documents() == before


async def test_health_leaves_the_faults_of_writes_to_writes(fake: FakeFirestore, backend: FirestoreBackend) -> None:
    fake.faults.add("write:status=503")
    assert (await backend.health([(REF, "off")], deadline=soon())).ok
    assert len(fake.faults.waiting()) == 1
