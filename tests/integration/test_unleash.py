"""Behaviour that only Unleash has, on a real server: strategies, accounts and their rights, archived flags."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.backends import settings
from agent.backends.contract import Outcome, Verdict
from agent.backends.unleash.backend import UnleashBackend
from agent.errors import Auth, NotFound, Permission, Unsupported
from tests.support.places import REF
from tests.support.places.unleash import UnleashPlace, place_of
from tests.support.unleash.server import UnleashServer

OP = "0b5c9a2e-6a0d-5b7e-9a35-1a0b6c1d2e3f"
EUROPE = {"contextName": "region", "operator": "IN", "values": ["eu"]}
HERE = place_of(REF.flag)


@pytest.fixture
async def place(unleash: UnleashServer, tmp_path: Path) -> AsyncIterator[UnleashPlace]:
    made = UnleashPlace(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.backend.close()
        await made.stop()


def soon() -> float:
    return time.monotonic() + 60


async def set_percent(place: UnleashPlace, percent: float) -> Outcome:
    version = (await place.backend.read(REF, deadline=soon())).version
    done = await place.backend.set_percent(REF, "on", "off", percent, expect=version, op_id=OP, deadline=soon())
    return done.outcome


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"parameters": {"rollout": "25", "stickiness": "default", "groupId": "g"}}, (None, 25)),
        ({"parameters": {"rollout": "0", "stickiness": "default", "groupId": "g"}}, (None, 0)),
        ({"constraints": [EUROPE]}, (None, None)),
        # Unleash disables the environment when its last active strategy is disabled.
        ({"disabled": True}, ("off", None)),
        ({"name": "default", "parameters": {}}, ("on", None)),
    ],
)
async def test_what_everyone_gets_is_told_only_where_one_strategy_gives_it(
    place: UnleashPlace, change: dict[str, Any], expected: tuple[str | None, float | None]
) -> None:
    await place.person.change_strategy(REF.flag, **change)
    state = await place.backend.read(REF, deadline=soon())
    assert (state.variant, state.percent) == expected
    await place.edit("off")
    assert (await place.backend.read(REF, deadline=soon())).variant == "off"


async def test_a_flip_leaves_the_strategies_as_they_are(place: UnleashPlace) -> None:
    await place.person.change_strategy(REF.flag, constraints=[EUROPE])
    before = await place.person.strategies(REF.flag)
    version = (await place.backend.read(REF, deadline=soon())).version
    done = await place.backend.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    assert done.outcome is Outcome.APPLIED
    assert await place.person.strategies(REF.flag) == before


async def test_a_flag_that_depends_on_another_is_not_said_to_be_on(place: UnleashPlace) -> None:
    before = await place.backend.read(REF, deadline=soon())
    await place.person.ask("POST", f"/projects/default/features/{REF.flag}/dependencies", {"feature": "other"})
    state = await place.backend.read(REF, deadline=soon())
    assert state.variant is None
    assert state.version != before.version


async def test_a_percentage_keeps_stickiness_and_group(place: UnleashPlace) -> None:
    parameters = {"rollout": "50", "stickiness": "sessionId", "groupId": "checkout"}
    await place.person.change_strategy(REF.flag, parameters=parameters)
    assert await set_percent(place, 10) is Outcome.APPLIED
    (strategy,) = await place.person.strategies(REF.flag)
    assert strategy["parameters"] == {**parameters, "rollout": "10"}


async def test_a_percentage_without_a_strategy_makes_one_and_enables(place: UnleashPlace) -> None:
    (strategy,) = await place.person.strategies(REF.flag)
    await place.edit("off")
    await place.person.ask("DELETE", f"{HERE}/strategies/{strategy['id']}")
    snap = await place.backend.snapshot(REF, deadline=soon())
    assert await set_percent(place, 10) is Outcome.APPLIED
    state = await place.backend.read(REF, deadline=soon())
    assert (state.variant, state.percent) == (None, 10)
    done = await place.backend.restore(snap, expect=state.version, op_id=OP, deadline=soon())
    assert done.outcome is Outcome.APPLIED
    assert (await place.backend.read(REF, deadline=soon())).version == snap.state.version
    assert await place.person.strategies(REF.flag) == []


@pytest.mark.parametrize("change", [{"constraints": [EUROPE]}, {"name": "default", "parameters": {}}])
async def test_a_percentage_replaces_nobodys_strategies(place: UnleashPlace, change: dict[str, Any]) -> None:
    await place.person.change_strategy(REF.flag, **change)
    before = await place.content()
    with pytest.raises(Unsupported, match="new-checkout"):
        await set_percent(place, 10)
    assert await place.content() == before


async def test_a_part_of_a_percent_is_refused(place: UnleashPlace) -> None:
    with pytest.raises(Unsupported, match="whole percents"):
        await set_percent(place, 0.5)
    assert await place.writes() == 0


async def test_the_rollout_before_a_percentage_is_restored(place: UnleashPlace) -> None:
    before, snap = await place.content(), await place.backend.snapshot(REF, deadline=soon())
    await set_percent(place, 10)
    version = (await place.backend.read(REF, deadline=soon())).version
    await place.backend.restore(snap, expect=version, op_id=OP, deadline=soon())
    assert await place.content() == before


async def test_a_flag_that_was_changed_and_changed_back_is_not_taken_for_untouched(place: UnleashPlace) -> None:
    snap = await place.backend.snapshot(REF, deadline=soon())
    await place.edit("off")
    await place.edit("on")
    found = await place.backend.verify(snap, "off", op_id=OP, deadline=soon())
    assert found.verdict is Verdict.OTHER
    assert found.state == snap.state


async def test_on_for_some_is_not_made_on_for_all(place: UnleashPlace) -> None:
    await place.person.change_strategy(REF.flag, constraints=[EUROPE])
    version = (await place.backend.read(REF, deadline=soon())).version
    with pytest.raises(Unsupported, match="change them in Unleash"):
        await place.backend.apply(REF, "on", expect=version, op_id=OP, deadline=soon())
    (problem,) = (await place.backend.health([(REF, "on")], deadline=soon())).problems
    assert "new-checkout" in problem
    assert (await place.backend.health([(REF, "off")], deadline=soon())).ok


async def test_an_archived_flag_is_not_found_and_announced(place: UnleashPlace) -> None:
    await place.person.ask("DELETE", f"/projects/default/features/{REF.flag}")
    with pytest.raises(NotFound, match="archived"):
        await place.backend.read(REF, deadline=soon())
    (problem,) = (await place.backend.health([(REF, "off")], deadline=soon())).problems
    assert "archived" in problem


async def test_an_environment_that_is_not_there_is_named(place: UnleashPlace) -> None:
    backend = UnleashBackend(settings.Unleash(url=place.url, environment="prod", token_file=place.token_file))
    try:
        with pytest.raises(NotFound, match="no environment 'prod'; it has 'development', 'production'"):
            await backend.read(REF, deadline=soon())
    finally:
        await backend.close()


async def token_of(place: UnleashPlace, role: str) -> str:
    """Create a user with that root role; returns its personal access token."""
    name, password = f"u{uuid.uuid4().hex[:10]}", f"Aa1-{uuid.uuid4().hex}"
    users = await place.person.ask("GET", "/user-admin")
    (number,) = [known["id"] for known in users["rootRoles"] if known["name"] == role]
    user = {"username": name, "email": f"{name}@example.org", "rootRole": number, "sendEmail": False}
    await place.person.ask("POST", "/user-admin", {**user, "password": password}, allowed=201)
    base = place.server_url
    # By default the cookie jar keeps no cookies for an IP address.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.post(f"{base}/auth/simple/login", json={"username": name, "password": password}) as answer:
            assert answer.status == 200
        asked = {"description": "flipback", "expiresAt": "2100-01-01T00:00:00Z"}
        async with session.post(f"{base}/api/admin/user/tokens", json=asked) as answer:
            assert answer.status == 201, await answer.text()
            return str((await answer.json())["secret"])


def kept(token: str, path: Path) -> Path:
    path.write_text(token)
    path.chmod(0o600)
    return path


async def test_an_editors_token_suffices_and_a_viewers_is_found_out_before_a_flip(
    place: UnleashPlace, tmp_path: Path
) -> None:
    editor = UnleashBackend(
        settings.Unleash(url=place.url, token_file=kept(await token_of(place, "Editor"), tmp_path / "editor"))
    )
    viewer = UnleashBackend(
        settings.Unleash(url=place.url, token_file=kept(await token_of(place, "Viewer"), tmp_path / "viewer"))
    )
    try:
        version = (await viewer.read(REF, deadline=soon())).version
        (problem,) = (await viewer.health([(REF, "off")], deadline=soon())).problems
        assert "UPDATE_FEATURE_ENVIRONMENT" in problem
        with pytest.raises(Permission):
            await viewer.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
        assert (await editor.health([(REF, "off")], deadline=soon())).ok
        done = await editor.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
        assert done.outcome is Outcome.APPLIED
        assert (await editor.read(REF, deadline=soon())).variant == "off"
    finally:
        await editor.close()
        await viewer.close()


@pytest.mark.parametrize("kind", ["nonsense", "client"])
async def test_a_token_that_is_not_accepted_is_said_and_never_shown(
    place: UnleashPlace, unleash: UnleashServer, tmp_path: Path, kind: str
) -> None:
    token = "user:0123456789abcdef" if kind == "nonsense" else unleash.client_token
    backend = UnleashBackend(settings.Unleash(url=place.url, token_file=kept(token, tmp_path / "other")))
    try:
        with pytest.raises((Auth, Permission)) as refused:
            await backend.read(REF, deadline=soon())
        (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    finally:
        await backend.close()
    assert token not in f"{refused.value!r} {problem} {backend!r}"
