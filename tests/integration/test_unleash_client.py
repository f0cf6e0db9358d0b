"""An application with Unleash's own client, which polls a real server, gets the variants that flipback sets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from UnleashClient.clients.unleash_client import UnleashClient

from agent.backends.contract import Outcome
from tests.support.places import REF
from tests.support.places.unleash import UnleashPlace
from tests.support.unleash.server import UnleashServer

OP = "0b5c9a2e-6a0d-5b7e-9a35-1a0b6c1d2e3f"
SUBJECTS = 5_000
PATIENCE_S = 20.0
"""The client polls once a second."""


@pytest.fixture
async def place(unleash: UnleashServer, tmp_path: Path) -> AsyncIterator[UnleashPlace]:
    made = UnleashPlace(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.backend.close()
        await made.stop()


@pytest.fixture
def client(place: UnleashPlace, unleash: UnleashServer, tmp_path: Path) -> Iterator[UnleashClient]:
    client = UnleashClient(
        url=f"{unleash.url}/api",
        app_name="shop",
        custom_headers={"Authorization": unleash.client_token},
        refresh_interval=1,
        disable_metrics=True,
        disable_registration=True,
        cache_directory=str(tmp_path / "cache"),
    )
    client.initialize_client()
    yield client
    client.destroy()


def share(client: UnleashClient) -> float:
    """The percentage of subjects for which the flag is on."""
    got = [client.is_enabled(REF.flag, {"userId": f"user-{number}"}) for number in range(SUBJECTS)]
    return 100 * sum(got) / SUBJECTS


def having(client: UnleashClient) -> set[int]:
    return {n for n in range(SUBJECTS) if client.is_enabled(REF.flag, {"userId": f"user-{n}"})}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_flip_and_its_restore_reach_every_subject(place: UnleashPlace, client: UnleashClient) -> None:
    await until(lambda: share(client) == 100)
    snap = await place.backend.snapshot(REF, deadline=time.monotonic() + 5)
    done = await place.backend.apply(REF, "off", expect=snap.state.version, op_id=OP, deadline=time.monotonic() + 5)
    assert done.state is not None
    await until(lambda: share(client) == 0)
    await place.backend.restore(snap, expect=done.state.version, op_id=OP, deadline=time.monotonic() + 5)
    await until(lambda: share(client) == 100)


async def test_a_percentage_is_the_share_of_subjects_and_who_has_the_flag_keeps_it(
    place: UnleashPlace, client: UnleashClient
) -> None:
    async def set_percent(percent: float) -> Outcome:
        deadline = time.monotonic() + 5
        version = (await place.backend.read(REF, deadline=deadline)).version
        done = await place.backend.set_percent(REF, "on", "off", percent, expect=version, op_id=OP, deadline=deadline)
        return done.outcome

    assert await set_percent(10) is Outcome.APPLIED
    # The tolerance is four standard deviations of a share of 10 % of 5,000 subjects: 1.7 percentage points.
    await until(lambda: 8.3 < share(client) < 11.7)
    before = having(client)
    assert await set_percent(30) is Outcome.APPLIED
    await until(lambda: 27.4 < share(client) < 32.6)
    assert before < having(client)
