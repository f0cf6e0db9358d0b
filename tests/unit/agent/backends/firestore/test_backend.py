"""How Firestore stores a flag and the records of its operations. tests/contract/test_backends.py tests the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.cloud import firestore
from hypothesis import given
from hypothesis import strategies as st
from openfeature.contrib.provider.flagd.resolvers.process.targeting import targeting as evaluate  # type: ignore[attr-defined]
from openfeature.evaluation_context import EvaluationContext

from agent.backends.contract import FlagRef, Outcome, Verdict
from agent.backends.firestore.backend import FirestoreBackend
from agent.backends.firestore.document import Document, definition, raw, state, value
from agent.errors import (
    Conflict,
    Invalid,
)
from agent.fakes.firestore.server import FakeFirestore
from tests.support.firestore import REF, application, apply, at, serving, snapshot, soon, verdict, working


@pytest.fixture
async def fake() -> AsyncIterator[FakeFirestore]:
    async with serving() as made:
        yield made


@pytest.fixture
async def backend(fake: FakeFirestore) -> AsyncIterator[FirestoreBackend]:
    async with working(fake) as made:
        yield made


@pytest.fixture
def client(fake: FakeFirestore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with application(fake, monkeypatch) as made:
        yield made


async def percent(backend: FirestoreBackend, percent: float) -> Outcome:
    expect = (await snapshot(backend)).state.version
    share = backend.set_percent(REF, "on", "off", percent, expect=expect, op_id="ramp", deadline=soon())
    return (await share).outcome


# The record of the operation


async def test_a_write_and_its_record_are_one_commit(
    fake: FakeFirestore, backend: FirestoreBackend, client: Any
) -> None:
    before = await snapshot(backend)
    assert await apply(backend, before.state.version) is Outcome.APPLIED
    flag = client.collection("flags").document(REF.flag).get()
    record = client.collection("flag_ops").document("op-1").get()
    assert record.update_time == record.get("at") == flag.update_time
    assert (record.get("flag"), record.get("environment")) == REF
    assert json.loads(record.get("previous")) == json.loads(before.state.raw)
    assert json.loads(record.get("new")) == flag.to_dict()


async def test_an_operation_that_is_on_record_is_not_done_again_whatever_the_flag_has_become(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    version = (await snapshot(backend)).state.version
    await apply(backend, version)
    fake.put(REF.flag, "on")
    assert await apply(backend, version) is Outcome.DUPLICATE
    assert fake.flags()[REF.flag]["defaultVariant"] == "on"
    assert fake.writes == 1


async def test_of_many_processes_with_one_operation_one_writes(fake: FakeFirestore) -> None:
    backends = [at(fake.port) for _ in range(6)]
    version = (await snapshot(backends[0])).state.version
    outcomes = await asyncio.gather(*(apply(backend, version) for backend in backends))
    assert sorted(outcomes) == [Outcome.APPLIED] + [Outcome.DUPLICATE] * 5
    assert fake.writes == 1
    await asyncio.gather(*(backend.close() for backend in backends))


async def test_a_record_that_appears_in_between_stops_the_write(
    fake: FakeFirestore, backend: FirestoreBackend, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = (await snapshot(backend)).state.version
    commit = backend._connection.commit

    def too_late(writes: Any, **fields: Any) -> Any:
        client.collection("flag_ops").document("op-1").set({})
        return commit(writes, **fields)

    monkeypatch.setattr(backend._connection, "commit", too_late)
    assert await apply(backend, version) is Outcome.DUPLICATE
    assert fake.flags()[REF.flag]["defaultVariant"] == "on"


async def test_a_refusal_after_the_commit_is_found_on_record(fake: FakeFirestore, backend: FirestoreBackend) -> None:
    version = (await snapshot(backend)).state.version
    fake.faults.add("write:commit-then-fail=409")
    assert await apply(backend, version) is Outcome.DUPLICATE
    assert fake.writes == 1


async def test_an_operation_that_was_undone_by_a_person_has_not_landed(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    snap = await snapshot(backend)
    await apply(backend, snap.state.version)
    fake.put(REF.flag, "on")
    assert await verdict(backend, snap) is Verdict.OTHER


async def test_what_another_operation_wrote_is_not_ours(backend: FirestoreBackend) -> None:
    snap = await snapshot(backend)
    await apply(backend, snap.state.version, "another")
    assert await verdict(backend, snap) is Verdict.OTHER


async def test_a_restore_may_be_repeated_after_the_next_flip(fake: FakeFirestore, backend: FirestoreBackend) -> None:
    snap = await snapshot(backend)
    for number in range(2):
        assert await apply(backend, snap.state.version, f"op-{number}") is Outcome.APPLIED
        written = (await snapshot(backend)).state.version
        again = await backend.restore(snap, expect=written, op_id="restore", deadline=soon())
        assert again.outcome is Outcome.APPLIED
    assert len([path for path in fake.documents() if path.startswith("flag_ops/restore.")]) == 2


async def test_contention_without_end_is_a_conflict_and_writes_nothing(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    version = (await snapshot(backend)).state.version
    fake.faults.add("write:status=409,times=0")
    with pytest.raises(Conflict, match="contended"):
        await apply(backend, version)
    assert fake.writes == 0


# The definition


async def test_fields_that_flipback_does_not_know_survive(
    fake: FakeFirestore, backend: FirestoreBackend, client: Any
) -> None:
    flag = client.collection("flags").document(REF.flag)
    extra = {"owner": "shop", "key": b"\x00", "at": firestore.SERVER_TIMESTAMP, "place": firestore.GeoPoint(1, 2)}
    flag.update({**extra, "metadata": {"since": firestore.SERVER_TIMESTAMP}})
    before = flag.get().to_dict()
    snap = await snapshot(backend)
    assert await apply(backend, snap.state.version) is Outcome.APPLIED
    assert flag.get().to_dict() == {**before, "defaultVariant": "off"}
    written = (await snapshot(backend)).state.version
    await backend.restore(snap, expect=written, op_id="back", deadline=soon())
    assert flag.get().to_dict() == before


async def test_a_field_beside_the_definition_makes_no_other_version_and_stops_no_write(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    snap = await snapshot(backend)
    fake.edit(REF.flag, {"evaluations": 7})
    later = await snapshot(backend)
    assert later.state.version == snap.state.version
    assert later.identity != snap.identity
    assert await verdict(backend, snap) is Verdict.UNTOUCHED
    assert await apply(backend, snap.state.version) is Outcome.APPLIED


@pytest.mark.parametrize(
    "before",
    [
        {"targeting": '{"if": [{"in": [{"var": "email"}, ["a", "b"]]}, "on", "off"]}'},
        {"targeting": {"if": [{"==": [{"var": "tier"}, 1.0]}, "on", "off"]}},
        {"targeting": "{}", "state": "DISABLED"},
        {"targeting": "no rule at all"},
        {"defaultVariant": None},
    ],
)
async def test_what_was_there_is_put_back_exactly(
    fake: FakeFirestore, backend: FirestoreBackend, client: Any, before: dict[str, Any]
) -> None:
    fake.edit(REF.flag, before)
    flag = client.collection("flags").document(REF.flag)
    stored = repr(flag.get().to_dict())
    snap = await snapshot(backend)
    assert await apply(backend, snap.state.version) is Outcome.APPLIED
    read = await snapshot(backend)
    assert read.state.variant == "off"
    # An application that reads only text never gets a map.
    assert isinstance(flag.get().get("targeting"), type(before.get("targeting", {})))
    back = await backend.restore(snap, expect=read.state.version, op_id="back", deadline=soon())
    assert back.outcome is Outcome.APPLIED
    assert repr(flag.get().to_dict()) == stored
    assert (await snapshot(backend)).state == snap.state


async def test_a_rule_that_could_not_be_put_back_is_not_written_over(backend: FirestoreBackend, client: Any) -> None:
    client.collection("flags").document(REF.flag).update({"targeting": {"since": firestore.SERVER_TIMESTAMP}})
    with pytest.raises(Invalid, match="targeting"):
        await snapshot(backend)


async def test_an_application_reads_a_percentage_as_a_flagd_definition(backend: FirestoreBackend, client: Any) -> None:
    def cohort() -> set[int]:
        stored = client.collection("flags").document(REF.flag).get().get("targeting")
        rule = json.loads(stored) if isinstance(stored, str) else stored
        users = {user: EvaluationContext(targeting_key=f"user-{user}") for user in range(2000)}
        return {user for user, context in users.items() if evaluate(REF.flag, rule, context) == "on"}

    assert await percent(backend, 10) is Outcome.APPLIED
    first = cohort()
    assert 120 < len(first) < 280
    assert await percent(backend, 40) is Outcome.APPLIED
    assert first < cohort()
    assert (await backend.read(REF, deadline=soon())).percent == 40


names = st.text("aä.`", max_size=3)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | names
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.dictionaries(names, inner, max_size=3)
    | st.lists(inner.filter(lambda member: not isinstance(member, list)), max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["state", "variants", "defaultVariant", "targeting", "metadata"]), plain))
def test_a_definition_is_stored_and_read_without_loss(value_of: dict[str, Any]) -> None:
    stored = Document(fields={name: value(content) for name, content in value_of.items()})
    read = definition(Document.FromString(stored.SerializeToString()))
    assert repr(sorted(json.loads(raw(read)).items())) == repr(sorted(json.loads(raw(value_of)).items()))
    backwards = dict(reversed(value_of.items()))
    assert state(read) == state(backwards)


async def test_a_flag_whose_key_cannot_be_a_document_is_refused(backend: FirestoreBackend) -> None:
    for key in ("a/b", "..", "__x__", "", "x" * 1501):
        with pytest.raises(Invalid):
            await backend.read(FlagRef(key, "production"), deadline=soon())


async def test_a_collection_may_lie_below_a_document(fake: FakeFirestore) -> None:
    nested = FakeFirestore("shops/berlin/flags")
    nested.put(REF.flag, "on")
    await nested.start()
    backend = at(nested.port, collection="shops/berlin/flags", operations="shops/berlin/ops")
    assert await apply(backend, (await snapshot(backend)).state.version) is Outcome.APPLIED
    assert sorted(nested.documents()) == ["shops/berlin/flags/new-checkout", "shops/berlin/ops/op-1"]
    await backend.close()
    await nested.stop()
