"""The fake Firestore, tested with Google's own clients: it must have what they need."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import firebase_admin
import pytest
from firebase_admin import credentials as firebase_credentials
from firebase_admin import firestore as firebase_firestore
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from agent.errors import FlipbackError
from agent.fakes.firestore.server import FakeFirestore

FLAG = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
ONCE: dict[str, Any] = {"retry": None, "timeout": 5.0}
"""One request only: the client's own retries would hide a fault."""


@pytest.fixture
async def fake() -> AsyncIterator[FakeFirestore]:
    made = FakeFirestore()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def client(fake: FakeFirestore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{fake.port}")
    made = firestore.Client(project="shop", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    yield made
    made.close()  # type: ignore[no-untyped-call]


def flag(client: Any, name: str = "new-checkout") -> Any:
    return client.collection("flags").document(name)


async def test_a_document_is_set_read_merged_updated_and_deleted(client: Any) -> None:
    flag(client).set({**FLAG, "a.b": 1, "rule": {"x": {"y": 1}, "z": [1, {"k": None}]}})
    flag(client).set({"rule": {"x": {"w": 2}}}, merge=True)
    flag(client).update({"rule.x.y": 3, "state": firestore.DELETE_FIELD})
    read = flag(client).get()
    assert read.to_dict() == {
        "variants": {"on": True, "off": False},
        "defaultVariant": "on",
        "a.b": 1,
        "rule": {"x": {"y": 3, "w": 2}, "z": [1, {"k": None}]},
    }
    assert flag(client).get(["rule.z"]).to_dict() == {"rule": {"z": [1, {"k": None}]}}
    flag(client).set({"only": 1})
    assert flag(client).get().to_dict() == {"only": 1}
    flag(client).delete()
    assert not flag(client).get().exists


async def test_every_kind_of_value_comes_back_as_it_was(client: Any) -> None:
    point = firestore.GeoPoint(52.5, 13.4)
    values = {"bytes": b"\x00\xff", "point": point, "double": 1.0, "int": 1, "none": None, "ref": flag(client)}
    flag(client).set(values)
    read = flag(client).get().to_dict()
    assert read == values
    assert isinstance(read["double"], float)


async def test_what_is_not_there_is_not_updated_and_what_is_there_not_created(client: Any) -> None:
    with pytest.raises(exceptions.NotFound):
        flag(client).update({"a": 1})
    flag(client).create(FLAG)
    with pytest.raises(exceptions.AlreadyExists):
        flag(client).create({})
    assert flag(client).get().to_dict() == FLAG


async def test_transforms_are_made_by_the_server(client: Any) -> None:
    flag(client).set({"n": 1, "x": 0.5, "list": [1, 2], "most": 3, "least": 3, "same": 3})
    result = flag(client).update(
        {
            "at": firestore.SERVER_TIMESTAMP,
            "n": firestore.Increment(2),
            "x": firestore.Increment(1),
            "new": firestore.Increment(5),
            "list": firestore.ArrayUnion([2, 3, 3]),
            "most": firestore.Maximum(7),
            "least": firestore.Minimum(-7),
            "same": firestore.Minimum(9),
        }
    )
    read = flag(client).get().to_dict()
    assert read.pop("at") == result.update_time
    assert read == {"n": 3, "x": 1.5, "new": 5, "list": [1, 2, 3], "most": 7, "least": -7, "same": 3}
    flag(client).update({"list": firestore.ArrayRemove([1, 3])})
    assert flag(client).get().get("list") == [2]


async def test_a_batch_is_done_whole_or_not_at_all(client: Any) -> None:
    flag(client).set(FLAG)
    batch = client.batch()
    batch.update(flag(client), {"defaultVariant": "off"})
    batch.create(client.collection("flag_ops").document("op"), {"at": firestore.SERVER_TIMESTAMP})
    results = batch.commit()
    assert results[0].update_time == results[1].update_time == flag(client).get().update_time
    again = client.batch()
    again.update(flag(client), {"defaultVariant": "on"})
    again.create(client.collection("flag_ops").document("op"), {})
    with pytest.raises(exceptions.AlreadyExists):
        again.commit()
    assert flag(client).get().get("defaultVariant") == "off"


async def test_a_write_on_another_update_time_is_refused(client: Any) -> None:
    flag(client).set(FLAG)
    read = flag(client).get()
    option = client.write_option(last_update_time=read.update_time)
    flag(client).update({"defaultVariant": "off"}, option=option)
    with pytest.raises(exceptions.FailedPrecondition):
        flag(client).update({"defaultVariant": "on"}, option=option)
    assert flag(client).get().get("defaultVariant") == "off"


async def test_update_times_rise_and_a_write_that_changes_nothing_leaves_them(client: Any) -> None:
    times = [flag(client).set({"n": n}).update_time for n in range(50)]
    assert times == sorted(set(times))
    assert flag(client).set({"n": 49}).update_time == times[-1] == flag(client).get().update_time


async def test_what_the_real_one_cannot_hold_is_refused(client: Any) -> None:
    for bad in ({"a": [[1]]}, {"a": {"b": [{"c": [[1]]}]}}, {"__name__": 1}, {"a": "x" * 1_100_000}):
        with pytest.raises(exceptions.InvalidArgument):
            flag(client).set(bad)
    assert not flag(client).get().exists


async def test_a_transaction_whose_reads_have_changed_is_aborted(client: Any) -> None:
    flag(client).set({"n": 0})
    transaction = client.transaction(max_attempts=1)
    transaction._begin()
    read = flag(client).get(transaction=transaction).get("n")
    flag(client).set({"n": 10})
    transaction.update(flag(client), {"n": read + 1})
    with pytest.raises(exceptions.Aborted):
        transaction._commit()
    assert flag(client).get().get("n") == 10


async def test_no_update_of_concurrent_transactions_is_lost(client: Any) -> None:
    flag(client).set({"n": 0})

    @firestore.transactional
    def increment(transaction: Any) -> None:
        read = flag(client).get(transaction=transaction)
        transaction.update(flag(client), {"n": read.get("n") + 1})

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(increment, client.transaction(max_attempts=100)) for _ in range(12)]:
            done.result()
    assert flag(client).get().get("n") == 12


async def test_a_collection_is_read_whole_in_order_by_both_clients(fake: FakeFirestore, client: Any) -> None:
    for name in ("b", "a", "c"):
        fake.put(name, "on")
    flag(client, "a").collection("notes").document("inner").set({})
    collection = client.collection("flags")
    assert [read.id for read in collection.stream()] == ["a", "b", "c"]
    assert [read.id for read in collection.order_by("__name__").offset(1).limit(1).stream()] == ["b"]
    assert [ref.id for ref in collection.list_documents(page_size=2)] == ["a", "b", "c"]
    assert [read.id for read in flag(client, "a").collection("notes").stream()] == ["inner"]
    with pytest.raises(exceptions.MethodNotImplemented):
        list(collection.order_by("state").stream())

    app = firebase_admin.initialize_app(_Anonymous(), {"projectId": "shop"}, name="fake")
    try:
        admin = firebase_firestore.client(app)
        assert [read.to_dict()["defaultVariant"] for read in admin.collection("flags").stream()] == ["on"] * 3
    finally:
        firebase_admin.delete_app(app)


class _Anonymous(firebase_credentials.Base):  # type: ignore[misc]
    def get_credential(self) -> Any:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("what", ["document", "collection"])
async def test_a_listener_is_told_what_there_is_and_of_every_change(
    fake: FakeFirestore, client: Any, what: str
) -> None:
    told: list[dict[str, Any]] = []
    news = threading.Condition()

    def listener(documents: Any, changes: Any, read_time: Any) -> None:
        with news:
            told.append({read.id: read.to_dict()["defaultVariant"] for read in documents if read.exists})
            news.notify_all()

    def wait(expected: dict[str, Any]) -> None:
        with news:
            assert news.wait_for(lambda: told and told[-1] == expected, timeout=60), told

    fake.put("a", "on")
    watched = flag(client, "a") if what == "document" else client.collection("flags")
    watch = watched.on_snapshot(listener)
    wait({"a": "on"})
    fake.put("a", "off")
    wait({"a": "off"})
    if what == "collection":
        fake.put("b", "on")
        wait({"a": "off", "b": "on"})
    flag(client, "a").delete()
    wait({} if what == "document" else {"b": "on"})
    watch.unsubscribe()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, exceptions.InvalidArgument),
        (401, exceptions.Unauthenticated),
        (403, exceptions.PermissionDenied),
        (404, exceptions.NotFound),
        (409, exceptions.Aborted),
        (412, exceptions.FailedPrecondition),
        (429, exceptions.ResourceExhausted),
        (500, exceptions.InternalServerError),
        (503, exceptions.ServiceUnavailable),
        (504, exceptions.DeadlineExceeded),
    ],
)
async def test_a_status_on_order_is_answered_once_and_nothing_done(
    fake: FakeFirestore, client: Any, status: int, error: type[Exception]
) -> None:
    fake.put("new-checkout", "on")
    fake.faults.add(f"write:status={status}")
    fake.faults.add(f"read:status={status}")
    with pytest.raises(error):
        flag(client).update({"defaultVariant": "off"}, **ONCE)
    with pytest.raises(error):
        flag(client).get(**ONCE)
    assert flag(client).get(**ONCE).get("defaultVariant") == "on"


@pytest.mark.parametrize(
    ("fault", "error", "done"),
    [
        ("write:commit-then-fail=503", exceptions.ServiceUnavailable, True),
        ("write:drop", exceptions.ServiceUnavailable, True),
        ("write:hang", exceptions.DeadlineExceeded, False),
        ("write:commit-then-hang", exceptions.DeadlineExceeded, True),
    ],
)
async def test_a_write_whose_answer_is_lost_is_carried_out_or_not_as_ordered(
    fake: FakeFirestore, client: Any, fault: str, error: type[Exception], done: bool
) -> None:
    fake.put("new-checkout", "on")
    fake.faults.add(fault)
    # With commit-then-hang, the request must reach the server before the time is up.
    timeout = {"write:hang": 0.3, "write:commit-then-hang": 2.0}.get(fault, 60.0)
    with pytest.raises(error):
        flag(client).update({"defaultVariant": "off"}, retry=None, timeout=timeout)
    assert flag(client).get().get("defaultVariant") == ("off" if done else "on")
    assert fake.writes == int(done)


async def test_a_delay_comes_before_the_answer(fake: FakeFirestore, client: Any) -> None:
    fake.put("new-checkout", "on")
    fake.faults.add("write:delay=30")
    with pytest.raises(exceptions.DeadlineExceeded):
        flag(client).update({"defaultVariant": "off"}, retry=None, timeout=0.2)
    fake.faults.add("write:delay=0.01")
    flag(client).update({"defaultVariant": "off"}, **ONCE)
    assert fake.writes == 1


async def test_a_lie_shows_what_was_before_or_confirms_what_was_not_done(fake: FakeFirestore, client: Any) -> None:
    fake.put("new-checkout", "on")
    flag(client).update({"defaultVariant": "off"})
    fake.faults.add("read:lie")
    assert flag(client).get().get("defaultVariant") == "on"
    assert flag(client).get().get("defaultVariant") == "off"
    fake.faults.add("write:lie")
    flag(client).update({"defaultVariant": "on"})
    assert flag(client).get().get("defaultVariant") == "off"


async def test_only_commits_of_clients_that_change_a_flag_are_counted(fake: FakeFirestore, client: Any) -> None:
    fake.put("new-checkout", "on")
    flag(client).update({"defaultVariant": "on"})
    client.collection("flag_ops").document("op").set({"a": 1})
    assert fake.writes == 0
    flag(client).update({"defaultVariant": "off"})
    assert fake.writes == 1


async def test_what_cannot_be_a_document_is_not_put(fake: FakeFirestore) -> None:
    for name in ("a/b", "__x__", ""):
        with pytest.raises(FlipbackError):
            fake.put(name, "on")


async def test_a_port_that_is_taken_is_not_shared(fake: FakeFirestore) -> None:
    with pytest.raises(FlipbackError, match="taken"):
        await FakeFirestore().start(fake.port)


async def test_the_documents_outlive_a_restart(fake: FakeFirestore, client: Any) -> None:
    flag(client).set(FLAG)
    port = fake.port
    await fake.stop()
    await fake.start(port)
    assert fake.flags() == {"new-checkout": FLAG}
    assert flag(client).get(timeout=60).to_dict() == FLAG
