"""The fake Realtime Database works with the real client, firebase_admin.db."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import aiohttp
import firebase_admin
import pytest
from firebase_admin import db, exceptions
from hypothesis import given
from hypothesis import strategies as st

from agent.fakes.faults import FakeFaults
from agent.fakes.rtdb import tree
from agent.fakes.rtdb.server import FakeRealtimeDatabase, Rules
from agent.fakes.server import Control

T = TypeVar("T")

keys = st.text(st.characters(exclude_characters=".$#[]/\x7f", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRealtimeDatabase]:
    fake = FakeRealtimeDatabase()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def app(fake: FakeRealtimeDatabase) -> Iterator[Any]:
    url = f"http://127.0.0.1:{fake.port}?ns=shop"
    app = firebase_admin.initialize_app(options={"databaseURL": url, "httpTimeout": 5}, name=f"shop-{fake.port}")
    yield app
    firebase_admin.delete_app(app)


async def client(call: Callable[[], T]) -> T:
    """Run a call of the real client in a thread: it blocks, and the fake answers in this loop."""
    return await asyncio.to_thread(call)


async def test_what_is_set_is_read(app: Any) -> None:
    root = db.reference("/", app)
    await client(lambda: root.child("flags/a").set({"state": "ENABLED", "variants": {"on": True, "off": False}}))
    assert await client(root.get) == {"flags": {"a": {"state": "ENABLED", "variants": {"on": True, "off": False}}}}
    assert await client(root.child("flags/a/state").get) == "ENABLED"
    assert await client(root.child("flags/none").get) is None


async def test_an_etag_names_the_content_and_none_the_absence(app: Any) -> None:
    node = db.reference("/flags/a", app)
    assert await client(lambda: node.get(etag=True)) == (None, "null_etag")
    await client(lambda: node.set(1))
    _, one = await client(lambda: node.get(etag=True))
    assert await client(lambda: node.get_if_changed(one)) == (False, None, None)
    await client(lambda: node.set(2))
    changed, value, two = await client(lambda: node.get_if_changed(one))
    assert (changed, value) == (True, 2)
    assert two != one
    await client(lambda: node.set(1))
    assert await client(lambda: node.get(etag=True)) == (1, one)


async def test_a_write_on_another_etag_is_refused_and_shows_what_is_there(app: Any) -> None:
    node = db.reference("/flags/a", app)
    assert (await client(lambda: node.set_if_unchanged("null_etag", {"x": 1})))[0]
    _, etag = await client(lambda: node.get(etag=True))
    assert await client(lambda: node.set_if_unchanged("null_etag", {"x": 2})) == (False, {"x": 1}, etag)
    written, _, new = await client(lambda: node.set_if_unchanged(etag, {"x": 3}))
    assert written
    assert await client(lambda: node.get(etag=True)) == ({"x": 3}, new)


async def test_many_transactions_at_once_lose_no_update(fake: FakeRealtimeDatabase, app: Any) -> None:
    node = db.reference("/count", app)
    add: Callable[[int | None], int] = lambda value: (value or 0) + 1  # noqa: E731
    await asyncio.gather(*(client(lambda: node.transaction(add)) for _ in range(12)))
    assert fake.get("count") == 12


async def test_a_listener_hears_sets_updates_and_removals_below_it(fake: FakeRealtimeDatabase, app: Any) -> None:
    heard: queue.Queue[tuple[str, str, object]] = queue.Queue()
    flags = db.reference("/flags", app)
    registration = await client(
        lambda: flags.listen(lambda event: heard.put((event.event_type, event.path, event.data)))
    )
    try:
        assert await client(lambda: heard.get(timeout=60)) == ("put", "/", None)
        await client(lambda: flags.child("a").set({"x": 1}))
        assert await client(lambda: heard.get(timeout=60)) == ("put", "/a", {"x": 1})
        await client(lambda: flags.child("a").update({"y": 2}))
        assert await client(lambda: heard.get(timeout=60)) == ("patch", "/a", {"y": 2})
        await client(flags.child("a/x").delete)
        assert await client(lambda: heard.get(timeout=60)) == ("put", "/a/x", None)
        await client(lambda: db.reference("/", app).set({"flags": {"b": 1}}))
        assert await client(lambda: heard.get(timeout=60)) == ("put", "/", {"b": 1})
    finally:
        # `close` alone would close the connection while its thread reads, and the thread would raise.
        registration._sse.should_connect, registration._sse.retry = False, 0
        fake.end_streams()
        await client(registration._thread.join)
        registration.close()


async def test_a_shallow_read_names_the_children(fake: FakeRealtimeDatabase, app: Any) -> None:
    fake.set("flags", {"a": {"x": 1}, "b": 2})
    assert await client(lambda: db.reference("/flags", app).get(shallow=True)) == {"a": True, "b": True}
    assert await client(lambda: db.reference("/flags/b", app).get(shallow=True)) == 2


async def test_pushed_children_sort_by_time_and_deletion_leaves_nothing(fake: FakeRealtimeDatabase, app: Any) -> None:
    log = db.reference("/log", app)
    pushed = [await client(lambda: log.push("x")) for _ in range(3)]
    assert len({child.key for child in pushed}) == 3
    assert sorted(child.key[:14] for child in pushed) == [child.key[:14] for child in pushed]
    await client(log.delete)
    assert fake.get("") is None


async def test_an_update_of_several_places_is_one_write(fake: FakeRealtimeDatabase, app: Any) -> None:
    await client(lambda: db.reference("/", app).update({"flags/a": 1, "ops/b": {"at": {".sv": "timestamp"}}}))
    assert fake.writes == 1
    assert fake.get("flags/a") == 1
    assert abs(fake.get("ops/b/at") / 1000 - time.time()) < 60


@pytest.mark.parametrize("bad", [{"a.b": 1}, {"": 1}, {"a": {"$x": 1}}, {".sv": "other"}])
async def test_what_the_database_cannot_hold_is_refused(fake: FakeRealtimeDatabase, app: Any, bad: object) -> None:
    with pytest.raises(exceptions.InvalidArgumentError, match="Invalid data"):
        await client(lambda: db.reference("/flags", app).set(bad))
    assert fake.get("") is None


async def test_a_user_whom_the_rules_forbid_it_is_refused(fake: FakeRealtimeDatabase) -> None:
    fake.rules = Rules(read=frozenset({"reader", "writer"}), write=frozenset({"writer"}))
    url = f"http://127.0.0.1:{fake.port}?ns=shop"
    options = {"databaseURL": url, "databaseAuthVariableOverride": {"uid": "reader"}}
    app = firebase_admin.initialize_app(options=options, name=f"rules-{fake.port}")
    try:
        assert await client(db.reference("/flags", app).get) is None
        with pytest.raises(exceptions.UnauthenticatedError, match="Permission denied"):
            await client(lambda: db.reference("/flags", app).set(1))
    finally:
        firebase_admin.delete_app(app)


async def test_a_person_cannot_make_a_flag_that_the_database_cannot_have(fake: FakeRealtimeDatabase) -> None:
    control = Control(fake)
    await control.start()
    try:
        async with aiohttp.ClientSession() as session:
            for name, status in (("a.b", 400), ("a%20b", 200)):
                async with session.put(f"http://127.0.0.1:{control.port}/flags/{name}?variant=off") as answer:
                    assert answer.status == status
    finally:
        await control.stop()
    assert list(fake.flags()) == ["a b"]


async def test_requests_that_are_no_requests_are_refused(fake: FakeRealtimeDatabase) -> None:
    url = f"http://127.0.0.1:{fake.port}/flags.json"
    async with aiohttp.ClientSession() as session:
        async with session.patch(url, data=b"{}", headers={"if-match": "null_etag"}) as answer:
            assert answer.status == 400
        async with session.put(url, data=b"{", headers={}) as answer:
            assert (answer.status, "couldn't parse" in await answer.text()) == (400, True)
        async with session.put(url, data=b'"\xff"') as answer:
            assert answer.status == 400
        async with session.put(f"http://127.0.0.1:{fake.port}/a%2Fb.json", data=b"1") as answer:
            assert (answer.status, "Invalid path" in await answer.text()) == (400, True)
        async with session.put(f"http://127.0.0.1:{fake.port}/flags", data=b"1") as answer:
            assert answer.status == 404
        async with session.put(f"{url}?print=silent", data=b"1") as answer:
            assert (answer.status, await answer.read()) == (204, b"")
    assert fake.get("flags") == 1


async def test_a_listener_is_kept_alive(fake: FakeRealtimeDatabase) -> None:
    fake.keep_alive = 0.02
    async with (
        aiohttp.ClientSession(headers={"Accept": "text/event-stream"}) as session,
        session.get(f"http://127.0.0.1:{fake.port}/.json") as stream,
        asyncio.timeout(60),
    ):
        lines = [await stream.content.readline() for _ in range(6)]
    assert lines == [
        b"event: put\n",
        b'data: {"path":"/","data":null}\n',
        b"\n",
        b"event: keep-alive\n",
        b"data: null\n",
        b"\n",
    ]


async def test_what_is_there_outlives_a_restart_at_the_same_port(fake: FakeRealtimeDatabase, app: Any) -> None:
    fake.put("a", "off")
    await fake.stop()
    await fake.start(fake.port)
    assert await client(db.reference("/flags/a/defaultVariant", app).get) == "off"


def test_a_person_gives_a_variant_to_everyone() -> None:
    fake = FakeRealtimeDatabase("shop/flags")
    fake.put("a", "on")
    fake.set("shop/flags/a/targeting", {"if": [True, "on", "off"]})
    fake.put("a", "off")
    assert fake.flags() == {
        "a": {"defaultVariant": "off", "state": "ENABLED", "variants": {"off": False, "on": True}},
    }
    assert fake.writes == 0
    assert isinstance(fake.faults, FakeFaults)


@given(values)
def test_what_is_given_out_is_kept_as_it_is(value: object) -> None:
    kept = tree.stored(value, 0)
    assert tree.stored(tree.shown(kept), 0) == kept


@given(values, st.lists(keys, max_size=3), values)
def test_a_write_shows_where_it_was_made_and_changes_no_earlier_tree(
    before: object, path: list[str], value: object
) -> None:
    old = tree.stored(before, 0)
    etag, kept = tree.etag(old), tree.stored(value, 0)
    new = tree.put(old, path, kept)
    assert tree.get(new, path) == kept
    assert tree.etag(old) == etag
    assert new == tree.stored(tree.shown(new), 0), "an empty object was kept"


@pytest.mark.parametrize(
    ("value", "out"),
    [
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({"1": "b", "2": "c"}, [None, "b", "c"]),
        ({"0": "a", "5": "f"}, {"0": "a", "5": "f"}),
        ({"00": "a"}, {"00": "a"}),
        ({"a": {}, "b": None, "c": []}, None),
        (["a", None], ["a"]),
    ],
)
def test_objects_with_numbers_for_names_come_back_as_arrays_and_empty_ones_not_at_all(
    value: object, out: object
) -> None:
    assert tree.shown(tree.stored(value, 0)) == out
