"""The Realtime Database beyond the contract, which tests/contract/test_backends.py tests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agent.backends import settings
from agent.backends.contract import FlagRef, Follows, Outcome, Snapshot, Verdict
from agent.backends.google import EMULATORS
from agent.backends.http import Http, HttpAnswer
from agent.backends.rtdb import node as rtdb_node
from agent.backends.rtdb import stream as rtdb_stream
from agent.backends.rtdb.backend import RealtimeDatabaseBackend
from agent.backends.rtdb.stream import EventParser, ServerEvent
from agent.errors import Auth, ConfigError, Conflict, Invalid, Permission, Timeout, Transient, Unsent, Unsupported
from agent.fakes.rtdb.server import FakeRealtimeDatabase, Rules
from agent.fakes.server import listen

URL = "https://shop-default-rtdb.firebaseio.com"
REF = FlagRef("new-checkout", "production")
OTHER = FlagRef("other", "production")
OP = "0b5c9a2e-6a0d-5b7e-9a35-1a0b6c1d2e3f"
FLAG = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}


@pytest.fixture(autouse=True)
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EMULATORS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRealtimeDatabase]:
    fake = FakeRealtimeDatabase()
    fake.set("flags", {"new-checkout": FLAG, "other": FLAG})
    await fake.start()
    yield fake
    await fake.stop()


@asynccontextmanager
async def backend_at(port: int, **more: Any) -> AsyncIterator[RealtimeDatabaseBackend]:
    backend = RealtimeDatabaseBackend(settings.RealtimeDatabase(url=URL, emulator=f"127.0.0.1:{port}", **more))
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture
async def backend(fake: FakeRealtimeDatabase) -> AsyncIterator[RealtimeDatabaseBackend]:
    async with backend_at(fake.port) as backend:
        yield backend


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def snapshot(backend: RealtimeDatabaseBackend) -> Snapshot:
    return await backend.snapshot(REF, deadline=soon())


async def flip(backend: RealtimeDatabaseBackend, expect: str, op: str = OP) -> Outcome:
    return (await backend.apply(REF, "off", expect=expect, op_id=op, deadline=soon())).outcome


# Nodes.


async def test_the_operation_stands_in_the_node_and_does_not_count_in_the_version(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    assert await flip(backend, (await snapshot(backend)).state.version) is Outcome.APPLIED
    assert fake.get("flags/new-checkout/metadata") == {"flipback_op": f"flip {OP}"}
    before = await snapshot(backend)
    fake.set("flags/new-checkout/metadata/flipback_op", "another")
    after = await snapshot(backend)
    assert after.state == before.state
    assert after.identity != before.identity


async def test_members_that_are_not_known_survive_a_flip_and_its_restoring(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    more = {"owner": "team-a", "notes": {"1": ["x"], "deep": {"er": 1.5}}, "metadata": {"ticket": "A-1", "n": 3}}
    rules = {"if": [{"in": ["@example.org", {"var": "email"}]}, "on", "off"]}
    fake.set("flags/new-checkout", {**FLAG, **more, "targeting": rules})
    before, snap = fake.get("flags/new-checkout"), await snapshot(backend)
    await flip(backend, snap.state.version)
    metadata = {"ticket": "A-1", "n": 3, "flipback_op": f"flip {OP}"}
    flipped = {**before, "metadata": metadata, "defaultVariant": "off"}
    del flipped["targeting"]
    assert fake.get("flags/new-checkout") == flipped
    expect = (await snapshot(backend)).state.version
    await backend.restore(snap, expect=expect, op_id="back", deadline=soon())
    restored = fake.get("flags/new-checkout")
    assert restored["metadata"].pop("flipback_op") == "restore back"
    assert restored == before


async def test_variants_named_by_numbers_come_as_an_array_and_are_names_all_the_same(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    fake.set("flags/new-checkout", {"state": "ENABLED", "variants": {"1": "b", "2": "c"}, "defaultVariant": "1"})
    assert fake.get("flags/new-checkout/variants") == [None, "b", "c"]
    version = (await snapshot(backend)).state.version
    result = await backend.apply(REF, "2", expect=version, op_id=OP, deadline=soon())
    assert result.outcome is Outcome.APPLIED
    assert result.state == await backend.read(REF, deadline=soon())
    assert fake.get("flags/new-checkout/defaultVariant") == "2"
    assert fake.get("flags/new-checkout/variants") == [None, "b", "c"]


@pytest.mark.parametrize("value", ["on", 1, True, [1, 2]])
async def test_a_node_that_is_no_flag_is_invalid(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, value: object
) -> None:
    fake.set("flags/new-checkout", value)
    with pytest.raises(Invalid, match="new-checkout"):
        await snapshot(backend)


@pytest.mark.parametrize("change", [{"variants": None}, {"variants": {"on": 1}}, {"metadata": "text"}])
async def test_a_flag_that_cannot_take_the_flip_is_not_written(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, change: dict[str, object]
) -> None:
    fake.set("flags/new-checkout", {**FLAG, **change})
    before, version = fake.get(""), (await snapshot(backend)).state.version
    with pytest.raises(Invalid, match="new-checkout"):
        await flip(backend, version)
    assert fake.get("") == before
    assert len((await backend.health([(REF, "off")], deadline=soon())).problems) == 1


@pytest.mark.parametrize("flag", ["a.b", "a/b", "$a", "a#", "a[0]", "a\n", "a\x7f", "", "x" * 769, "\ud800"])
async def test_a_flag_that_the_database_cannot_have_is_invalid_and_is_not_asked_for(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, flag: str
) -> None:
    with pytest.raises(Invalid, match="a key of the database has"):
        await backend.read(FlagRef(flag, "production"), deadline=soon())
    assert not fake.requests


@pytest.mark.parametrize("flag", ["a b", "100%", "a+b", "ä?&=", "%2F", "x" * 768, "…"])
async def test_a_flag_of_any_other_name_is_found(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, flag: str
) -> None:
    fake.set(["flags", flag], FLAG)
    version = (await backend.read(FlagRef(flag, "production"), deadline=soon())).version
    await backend.apply(FlagRef(flag, "production"), "off", expect=version, op_id=OP, deadline=soon())
    assert fake.flags()[flag]["defaultVariant"] == "off"


# Compare and set.


async def during_the_write(fake: FakeRealtimeDatabase, write: Awaitable[Any], change: Callable[[], None]) -> Any:
    """Make a change between the read and the write of one call."""
    fake.faults.add("write:delay=0.1")
    task = asyncio.ensure_future(write)
    await until(lambda: any(request.method == "PUT" for request in fake.requests))
    change()
    return await task


async def test_a_flag_that_was_only_signed_by_another_meanwhile_is_read_and_written_again(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    version = (await snapshot(backend)).state.version
    outcome = await during_the_write(
        fake, flip(backend, version), lambda: fake.set("flags/new-checkout/metadata/flipback_op", "another")
    )
    assert outcome is Outcome.APPLIED
    assert fake.get("flags/new-checkout/defaultVariant") == "off"
    assert fake.writes == 1


async def test_a_flag_that_a_person_changed_meanwhile_is_left_alone(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    version = (await snapshot(backend)).state.version
    outcome = await during_the_write(
        fake, flip(backend, version), lambda: fake.set("flags/new-checkout/variants/beta", True)
    )
    assert outcome is Outcome.CONFLICT
    assert fake.get("flags/new-checkout/defaultVariant") == "on"


async def test_the_same_operation_by_another_process_meanwhile_is_a_duplicate(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    version = (await snapshot(backend)).state.version
    done = {**FLAG, "defaultVariant": "off", "metadata": {"flipback_op": f"flip {OP}"}}
    outcome = await during_the_write(fake, flip(backend, version), lambda: fake.set("flags/new-checkout", done))
    assert outcome is Outcome.DUPLICATE
    assert fake.writes == 0


async def test_a_node_that_is_written_at_every_attempt_is_a_conflict(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    version = (await snapshot(backend)).state.version
    fake.faults.add("write:status=412,times=0")
    with pytest.raises(Conflict, match="nothing was written"):
        await flip(backend, version)
    assert fake.writes == 0


async def test_an_operation_that_a_person_took_back_is_not_done_again(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    snap = await snapshot(backend)
    await flip(backend, snap.state.version)
    # The console sets only this member; the flag has its former version again.
    fake.set("flags/new-checkout/defaultVariant", "on")
    assert (await snapshot(backend)).state.version == snap.state.version
    assert (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.OTHER
    assert await flip(backend, snap.state.version) is Outcome.DUPLICATE
    assert fake.get("flags/new-checkout/defaultVariant") == "on"


async def test_the_same_write_by_another_operation_is_not_taken_for_ours(backend: RealtimeDatabaseBackend) -> None:
    snap = await snapshot(backend)
    await flip(backend, snap.state.version, op="another")
    found = await backend.verify(snap, "off", op_id=OP, deadline=soon())
    assert (found.verdict, found.state and found.state.variant) == (Verdict.OTHER, "off")


async def test_a_restoring_whose_answer_was_lost_is_done_once(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    snap = await snapshot(backend)
    await flip(backend, snap.state.version)
    expect, before = (await snapshot(backend)).state.version, fake.writes
    fake.faults.add("write:drop")
    try:
        # By default aiohttp sends a PUT again if a reused connection is closed.
        result = await backend.restore(snap, expect=expect, op_id=OP, deadline=soon())
        assert result.outcome is Outcome.DUPLICATE
    except Transient:
        pass
    assert fake.writes == before + 1
    assert fake.get("flags/new-checkout/defaultVariant") == "on"


# Authorization and addresses.


async def test_the_user_id_goes_with_reads_writes_and_listening(fake: FakeRealtimeDatabase) -> None:
    uid = 'flipback "a+b&c=d" %41'
    fake.rules = Rules(read=frozenset({uid}), write=frozenset({uid}))
    async with backend_at(fake.port, uid=uid) as backend:
        listening = asyncio.create_task(backend.follow([REF], lambda ref: None))
        assert await flip(backend, (await snapshot(backend)).state.version) is Outcome.APPLIED
        assert (await backend.health([(REF, "off")], deadline=soon())).ok
        await until(lambda: any(request.stream for request in fake.requests))
        listening.cancel()
    assert {request.method for request in fake.requests} == {"GET", "PUT"}
    assert [json.loads(request.query["auth_variable_override"]) for request in fake.requests] == [
        {"uid": uid} for _ in fake.requests
    ]


async def test_without_a_user_id_no_override_is_sent(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    await snapshot(backend)
    assert [request.query for request in fake.requests] == [{"ns": "shop-default-rtdb"}]


async def test_a_real_database_is_asked_over_https_at_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    urls = []

    async def request(self: Http, method: str, url: str, **more: object) -> HttpAnswer:
        urls.append(url)
        return HttpAnswer(200, {"ETag": "e"}, json.dumps(FLAG).encode())

    monkeypatch.setattr(Http, "request", request)
    backend = RealtimeDatabaseBackend(settings.RealtimeDatabase(url=f"{URL}/", path="/shop/flags/", uid="flipback"))
    await snapshot(backend)
    await backend.close()
    assert urls == [f"{URL}/shop/flags/new-checkout.json?auth_variable_override=%7B%22uid%22%3A%20%22flipback%22%7D"]


@pytest.mark.parametrize(
    "url",
    [
        "http://shop-default-rtdb.firebaseio.com",
        "shop-default-rtdb.firebaseio.com",
        "https://",
        "https://shop-default-rtdb.firebaseio.com/flags",
        "https://shop-default-rtdb.firebaseio.com?auth=secret",
        "https://user:secret@shop-default-rtdb.firebaseio.com",
        "https://shop-default-rtdb.firebaseio.com:port",
        "https://[",
    ],
)
def test_a_url_that_is_not_that_of_a_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected https://DATABASE") as caught:
        RealtimeDatabaseBackend(settings.RealtimeDatabase(url=url))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["/", "a//b", "a.b", "flags/$x"])
def test_a_path_that_the_database_cannot_have_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="path"):
        RealtimeDatabaseBackend(settings.RealtimeDatabase(url=URL, path=path))


@pytest.mark.parametrize(
    "emulator", ["10.0.0.1:9000", "example.org:9000", "127.0.0.1", "localhost:", "localhost:70000", "0.0.0.0:9000"]
)
def test_an_emulator_that_is_not_on_this_machine_is_refused(emulator: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        RealtimeDatabaseBackend(settings.RealtimeDatabase(url=URL, emulator=emulator))


@pytest.mark.parametrize("variable", EMULATORS)
def test_a_variable_of_an_emulator_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:9000")
    with pytest.raises(ConfigError, match=variable):
        RealtimeDatabaseBackend(settings.RealtimeDatabase(url=URL))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"type": "service_account", "private_key": "secret"}')
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        RealtimeDatabaseBackend(settings.RealtimeDatabase(url=URL, credentials=path))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no credentials") as caught:
        RealtimeDatabaseBackend(settings.RealtimeDatabase(url=URL, credentials=path))
    assert "secret" not in str(caught.value)


# Deadlines and permissions.


@pytest.mark.parametrize("on", ["read", "write"])
async def test_every_call_ends_by_its_deadline_while_the_server_hangs(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, on: str
) -> None:
    snap = await snapshot(backend)
    fake.faults.add(f"{on}:hang,times=0")

    def late() -> float:
        # The read before a write that hangs must succeed in time.
        return soon(0.1 if on == "read" else 2.0)

    calls: list[Awaitable[object]] = [
        backend.apply(REF, "off", expect=snap.state.version, op_id=OP, deadline=late()),
        backend.set_percent(REF, "on", "off", 10, expect=snap.state.version, op_id=OP, deadline=late()),
        backend.health([(REF, "off"), (OTHER, "off")], deadline=late()),
    ]
    if on == "read":
        calls += [
            backend.read(REF, deadline=late()),
            backend.verify(snap, "off", op_id=OP, deadline=late()),
            backend.restore(snap, expect="any", op_id=OP, deadline=late()),
        ]
    async with asyncio.timeout(60):
        results = await asyncio.gather(*calls, return_exceptions=True)
    # If the read before the write hangs, it is certain that nothing was written.
    write = Unsent if on == "read" else Timeout
    expected = [write, write, Timeout, Timeout, Timeout, write][: len(calls)]
    assert [type(result) for result in results] == expected
    assert fake.writes == 0


async def test_health_names_the_right_that_the_rules_do_not_give(fake: FakeRealtimeDatabase) -> None:
    fake.rules = Rules(read=frozenset({"flipback"}), write=frozenset())
    async with backend_at(fake.port, uid="flipback") as backend:
        health = await backend.health([(REF, "off")], deadline=soon())
        assert len(health.problems) == 1
        assert "do not let uid 'flipback' write /flags/new-checkout" in health.problems[0]
        with pytest.raises(Permission):
            await flip(backend, (await snapshot(backend)).state.version)
        fake.rules = Rules(read=frozenset(), write=frozenset())
        health = await backend.health([(REF, "off")], deadline=soon())
        assert "do not let uid 'flipback' read /flags/new-checkout" in health.problems[0]


async def test_an_account_that_is_not_taken_is_told_which_role_it_needs(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    fake.faults.add("read:status=401,times=0")
    with pytest.raises(Auth, match=r"firebasedatabase\.instances\.update"):
        await snapshot(backend)


async def test_what_stops_all_flags_alike_is_said_once(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    await fake.stop()
    assert len((await backend.health([(REF, "off"), (OTHER, "off")], deadline=soon())).problems) == 1


@asynccontextmanager
async def server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner, port = await listen(app, 0)
    try:
        yield port
    finally:
        await runner.cleanup()


async def test_a_server_that_compares_no_etags_is_not_healthy() -> None:
    async def careless(request: web.Request) -> web.Response:
        return web.json_response(FLAG, headers={"ETag": "e"})

    async with server(careless) as port, backend_at(port) as backend:
        health = await backend.health([(REF, "off")], deadline=soon())
    assert "compares no ETags" in health.problems[0]


@pytest.mark.parametrize(("body", "error"), [("{}", Unsupported), ("<html>", Invalid), ("", Invalid)])
async def test_an_answer_that_is_not_a_databases_is_told(body: str, error: type[Exception]) -> None:
    async def other(request: web.Request) -> web.Response:
        return web.Response(text=body)

    async with server(other) as port, backend_at(port) as backend:
        with pytest.raises(error):
            await snapshot(backend)


# Listening.


class Listening:
    """A task that follows both flags, and the changes that it reported."""

    def __init__(self, backend: RealtimeDatabaseBackend) -> None:
        self.told: list[FlagRef] = []
        self.task = asyncio.create_task(backend.follow([REF, OTHER], self.told.append))

    async def told_all(self) -> None:
        """Wait for the reports with which every connection begins, and forget them."""
        await until(lambda: {REF, OTHER} <= set(self.told))
        self.told.clear()


@pytest.fixture
async def listening(fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend) -> AsyncIterator[Listening]:
    listening = Listening(backend)
    await listening.told_all()
    yield listening
    listening.task.cancel()


def streams(fake: FakeRealtimeDatabase) -> int:
    return sum(request.stream for request in fake.requests)


def test_the_backend_is_one_that_tells_of_changes() -> None:
    assert isinstance(RealtimeDatabaseBackend(settings.RealtimeDatabase(url=URL, emulator="localhost:1")), Follows)


async def test_a_change_is_told_of_the_flag_that_was_changed_alone(
    fake: FakeRealtimeDatabase, listening: Listening
) -> None:
    fake.put("other", "off")
    fake.set("flags/unwatched", FLAG)
    fake.set("flags/new-checkout/metadata/x", 1)
    await until(lambda: len(listening.told) == 2)
    assert listening.told == [OTHER, REF]


async def test_a_change_above_the_flags_is_told_of_all(fake: FakeRealtimeDatabase, listening: Listening) -> None:
    fake.set("", {"flags": {"new-checkout": FLAG}})
    await listening.told_all()


async def test_a_listener_outlives_an_outage_and_tells_what_it_missed(
    fake: FakeRealtimeDatabase, listening: Listening
) -> None:
    await fake.stop()
    fake.put("new-checkout", "off")
    await fake.start(fake.port)
    await listening.told_all()
    fake.put("new-checkout", "on")
    await until(lambda: listening.told == [REF])


async def test_a_silent_server_is_left_for_a_new_connection(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtdb_stream, "SILENCE_S", 0.05)
    fake.keep_alive = 3600
    task = asyncio.create_task(backend.follow([REF], lambda ref: None))
    await until(lambda: streams(fake) >= 2)
    task.cancel()


async def test_a_server_that_hangs_at_the_beginning_is_asked_again(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtdb_stream, "CONNECT_S", 0.05)
    fake.faults.add("read:hang")
    listening = Listening(backend)
    await listening.told_all()
    listening.task.cancel()


async def test_a_connection_is_renewed_before_its_token_ends(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtdb_stream, "RENEW_S", 0.05)
    fake.keep_alive = 0.01
    task = asyncio.create_task(backend.follow([REF], lambda ref: None))
    await until(lambda: streams(fake) >= 3)
    task.cancel()


@pytest.mark.parametrize("event", [("auth_revoked", "credential is no longer valid"), ("cancel", None)])
async def test_a_stream_that_the_server_gives_up_is_begun_again(
    fake: FakeRealtimeDatabase, listening: Listening, event: tuple[str, object]
) -> None:
    fake.send_event(*event)
    await listening.told_all()


@pytest.mark.parametrize("fault", ["status=503,times=2", "status=401,times=3", "drop"])
async def test_a_listener_that_is_refused_tries_again(
    fake: FakeRealtimeDatabase, listening: Listening, fault: str
) -> None:
    fake.faults.add(f"read:{fault}")
    fake.end_streams()
    await listening.told_all()


async def test_a_callback_that_raises_ends_nothing(
    fake: FakeRealtimeDatabase, backend: RealtimeDatabaseBackend
) -> None:
    told = []

    def changed(ref: FlagRef) -> None:
        told.append(ref)
        raise RuntimeError("of the caller")

    task = asyncio.create_task(backend.follow([REF], changed))
    for count in (1, 2, 3):
        await until(lambda: len(told) == count)  # noqa: B023 - awaited within the turn
        fake.put("new-checkout", "off" if count % 2 else "on")
    assert streams(fake) == 1
    task.cancel()


async def test_an_event_that_cannot_be_read_is_told_of_all(fake: FakeRealtimeDatabase, listening: Listening) -> None:
    fake.send_event("put", "no object")
    await listening.told_all()


async def test_an_event_larger_than_a_buffer_is_heard(fake: FakeRealtimeDatabase, listening: Listening) -> None:
    fake.set("flags/new-checkout/notes", "x" * 2**20)
    await until(lambda: listening.told == [REF])


async def test_a_stream_is_followed_to_the_server_that_holds_the_data(fake: FakeRealtimeDatabase) -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{fake.port}{request.path_qs}")

    async with server(redirect) as port, backend_at(port, uid="flipback") as backend:
        listening = Listening(backend)
        await listening.told_all()
        listening.task.cancel()
    assert fake.requests[0].query["auth_variable_override"] == '{"uid": "flipback"}'


async def test_the_token_is_not_carried_to_another_site(caplog: pytest.LogCaptureFixture) -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://localhost.example.org{request.path_qs}")

    async with server(redirect) as port, backend_at(port) as backend:
        task = asyncio.create_task(backend.follow([REF], lambda ref: None))
        await until(lambda: "listener.lost" in caplog.text)
        task.cancel()
    assert "no part of 127.0.0.1" in caplog.records[-1].fields["error"]  # type: ignore[attr-defined]


@given(st.data())
def test_events_are_the_same_however_the_stream_is_cut(data: st.DataObject) -> None:
    text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=5)
    events = data.draw(st.lists(st.tuples(st.sampled_from(["put", "patch", "keep-alive"]), st.lists(text, min_size=1))))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    lines = []
    for name, values in events:
        lines += [f"event: {name}", *(f"data: {value}" for value in values), ": a comment", ""]
    stream = "".join(line + end for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, heard = EventParser(), list[ServerEvent]()
    for begin, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard += parser.feed(stream[begin:stop])
    assert heard == [ServerEvent(name, "\n".join(values).encode()) for name, values in events]


def test_an_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtdb_stream, "_MOST_BYTES", 100)
    parser = EventParser()
    assert not list(parser.feed(b"data: " + b"x" * 40 + b"\ndata: " + b"x" * 40))
    with pytest.raises(Invalid, match="more than"):
        list(parser.feed(b"x" * 20))


@given(st.dictionaries(st.sampled_from(["a", "b", "metadata"]), st.none() | st.just({}) | st.integers(), max_size=3))
def test_what_the_database_drops_does_not_count(definition: dict[str, Any]) -> None:
    kept = rtdb_node.kept(definition)
    assert kept == {name: value for name, value in definition.items() if value not in (None, {})}
    assert rtdb_node.kept(kept) == kept
