"""Following flags in Firestore: which changes are reported, and what must not end the follower."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agent.backends.contract import FlagRef, Follows
from agent.backends.firestore import listen as firestore_listen
from agent.backends.firestore.backend import FirestoreBackend
from agent.fakes.firestore.server import FakeFirestore
from tests.support.firestore import OTHER, PATIENCE_S, REF, application, serving, working


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


class Followed:
    """The changes that a follower reported; the event is set at each."""

    def __init__(self) -> None:
        self.told: list[FlagRef] = []
        self.news = asyncio.Event()

    def changed(self, ref: FlagRef) -> None:
        self.told.append(ref)
        self.news.set()

    async def until(self, expected: list[FlagRef]) -> None:
        """Wait until exactly these have been reported, in any order, and forget them."""
        async with asyncio.timeout(PATIENCE_S):
            while sorted(self.told) != sorted(expected):
                assert len(self.told) <= len(expected), self.told
                await self.news.wait()
                self.news.clear()
        self.told.clear()


@contextlib.asynccontextmanager
async def following(
    backend: FirestoreBackend, refs: list[FlagRef], changed: Callable[[FlagRef], None]
) -> AsyncIterator[None]:
    task = asyncio.create_task(backend.follow(refs, changed))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def followed(backend: FirestoreBackend) -> AsyncIterator[Followed]:
    follower = Followed()
    async with following(backend, [REF, OTHER], follower.changed):
        await follower.until([REF, OTHER])
        yield follower


async def test_an_outside_change_is_told_and_no_other(
    fake: FakeFirestore, backend: FirestoreBackend, followed: Followed
) -> None:
    assert isinstance(backend, Follows)
    fake.put("unwatched", "on")
    fake.put(REF.flag, "off")
    await followed.until([REF])
    fake.put(OTHER.flag, "off")
    await followed.until([OTHER])


async def test_a_flag_that_is_deleted_and_made_anew_is_told(
    client: Any, fake: FakeFirestore, followed: Followed
) -> None:
    client.collection("flags").document(REF.flag).delete()
    await followed.until([REF])
    fake.put(REF.flag, "on")
    await followed.until([REF])


async def test_what_changed_during_an_outage_is_told_after_it_and_nothing_else(
    fake: FakeFirestore, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=firestore_listen.__name__)
    port = fake.port
    await fake.stop()
    fake.put(OTHER.flag, "off")
    await fake.start(port)
    await followed.until([OTHER])
    said = [record.msg for record in caplog.records]
    assert said == ["listener.lost", "listener.back"]
    fake.put(REF.flag, "off")
    await followed.until([REF])


async def test_a_follower_that_raises_ends_nothing(fake: FakeFirestore, backend: FirestoreBackend) -> None:
    follower = Followed()

    def changed(ref: FlagRef) -> None:
        follower.changed(ref)
        raise ValueError(ref.flag)

    async with following(backend, [REF], changed):
        await follower.until([REF])
        for variant in ("off", "on"):
            fake.put(REF.flag, variant)
            await follower.until([REF])


async def test_a_stream_that_has_grown_old_is_made_anew_and_tells_only_what_is_new(
    fake: FakeFirestore, backend: FirestoreBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore_listen, "RENEW_AFTER_S", 0.05)
    opened = 0
    listen = backend._connection.listen

    def counted(*args: Any, **fields: Any) -> Iterator[Any]:
        nonlocal opened
        opened += 1
        return listen(*args, **fields)

    monkeypatch.setattr(backend._connection, "listen", counted)
    follower = Followed()
    async with following(backend, [REF], follower.changed):
        async with asyncio.timeout(PATIENCE_S):
            while opened < 4:
                await asyncio.sleep(0.01)
        assert follower.told == [REF]
        fake.put(REF.flag, "off")
        await follower.until([REF, REF])


async def test_a_follower_that_is_cancelled_leaves_no_listener_behind(
    fake: FakeFirestore, backend: FirestoreBackend
) -> None:
    follower = Followed()
    async with following(backend, [REF], follower.changed):
        await follower.until([REF])
        assert len(fake._store._followers) == 1
    async with asyncio.timeout(PATIENCE_S):
        while fake._store._followers:
            await asyncio.sleep(0.01)
