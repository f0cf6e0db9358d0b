"""The health server: what a supervisor reads decides whether a process is restarted."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from agent.armed.verdict import Arming
from agent.errors import FlipbackError
from agent.heartbeats.heartbeat import Obstacle
from agent.web.health import HealthServer, RoleHealth

GOOD = RoleHealth(live=True, ready=True, detail="at the watermark")
STARTING = RoleHealth(live=True, ready=False, detail="catching up, 40 s behind")
STUCK = RoleHealth(live=False, ready=False, detail="no progress for 31 s with lag 900")


class Roles:
    """What the process under test says of its roles."""

    def __init__(self) -> None:
        self.said: dict[str, RoleHealth] = {}
        self.error: Exception | None = None

    def __call__(self) -> dict[str, RoleHealth]:
        if self.error is not None:
            raise self.error
        return self.said


class Armed:
    """What is said of the whole deployment."""

    def __init__(self) -> None:
        self.said: Arming | None = Arming(())

    def __call__(self) -> Arming | None:
        return self.said


@pytest.fixture
def armed() -> Armed:
    return Armed()


@pytest.fixture
def roles() -> Roles:
    return Roles()


@pytest.fixture
async def server(roles: Roles, armed: Armed) -> AsyncIterator[HealthServer]:
    server = HealthServer(roles, armed)
    await server.start()
    yield server
    await server.stop()


UNABLE = Obstacle(what="executor", why="no executor is alive", do="start one")
SHADOW = Obstacle(what="shadow", why="mode: shadow", waits=True)


async def get(server: HealthServer, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(server.url + path) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("said", "healthz", "readyz"),
    [
        ({"ingest": GOOD, "monitor": GOOD}, 200, 200),
        ({"ingest": GOOD, "monitor": STARTING}, 200, 503),
        ({"ingest": GOOD, "monitor": STUCK}, 503, 503),
        ({}, 200, 503),
    ],
)
async def test_one_bad_role_is_enough(
    server: HealthServer, roles: Roles, said: dict[str, RoleHealth], healthz: int, readyz: int
) -> None:
    roles.said = said
    assert ((await get(server, "/healthz"))[0], (await get(server, "/readyz"))[0]) == (healthz, readyz)


async def test_the_answer_tells_each_role(server: HealthServer, roles: Roles) -> None:
    roles.said = {"ingest": GOOD, "monitor": STARTING}
    _, body = await get(server, "/readyz")
    assert body == {
        "status": "failing",
        "armed": True,
        "obstacles": [],
        "roles": {
            "ingest": {"live": True, "ready": True, "detail": "at the watermark"},
            "monitor": {"live": True, "ready": False, "detail": "catching up, 40 s behind"},
        },
    }


@pytest.mark.parametrize(
    ("said", "status", "is_armed"),
    [
        (Arming(()), 200, True),
        (Arming((SHADOW,)), 200, False),
        (Arming((SHADOW, UNABLE)), 503, False),
        (None, 503, False),
    ],
)
async def test_it_is_ready_where_a_flip_would_happen_and_in_shadow_mode(
    server: HealthServer, roles: Roles, armed: Armed, said: Arming | None, status: int, is_armed: bool
) -> None:
    roles.said, armed.said = {"ingest": GOOD}, said
    answered, body = await get(server, "/readyz")
    assert (answered, body["armed"]) == (status, is_armed)
    assert len(body["obstacles"]) == (0 if said is None else len(said.obstacles))
    # A supervisor must not restart a process because another one is away.
    assert (await get(server, "/healthz"))[0] == 200


async def test_health_that_cannot_be_told_is_bad(server: HealthServer, roles: Roles) -> None:
    roles.error = RuntimeError("no monitor")
    assert await get(server, "/healthz") == (503, {"status": "failing", "roles": {}})


async def test_it_listens_on_loopback_and_on_a_port_of_its_own(server: HealthServer, roles: Roles) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    other = HealthServer(roles, armed)
    await other.start()
    assert other.url != server.url
    await other.stop()


async def test_only_reading_is_possible(server: HealthServer) -> None:
    async with aiohttp.ClientSession() as session, session.post(server.url + "/healthz") as answer:
        assert answer.status == 405


async def test_a_taken_port_is_an_error_that_names_it(roles: Roles, armed: Armed) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = HealthServer(roles, armed, port=port)
        with pytest.raises(FlipbackError, match=rf"127\.0\.0\.1:{port}.*another"):
            await server.start()
        await server.stop()


async def test_stopped_it_answers_no_more(roles: Roles, armed: Armed) -> None:
    server = HealthServer(roles, armed)
    await server.start()
    url = server.url
    await server.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.url
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url + "/healthz")
