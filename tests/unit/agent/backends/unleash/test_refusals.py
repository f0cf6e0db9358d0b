"""Writes that Unleash refuses because changes must be approved, a feature of its Enterprise edition only."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.backends import settings
from agent.backends.unleash.backend import UnleashBackend
from agent.errors import ConfigError, Invalid, Permission
from agent.fakes.server import listen
from tests.support.places import REF

OP = "0b5c9a2e-6a0d-5b7e-9a35-1a0b6c1d2e3f"
STRATEGY = {"id": "1", "name": "default", "constraints": [], "parameters": {}}
FEATURE = {"environments": [{"name": "production", "enabled": True, "strategies": [STRATEGY]}], "dependencies": []}
SWITCH = {"permission": "UPDATE_FEATURE_ENVIRONMENT", "project": "default", "environment": "production"}
SKIP = {**SWITCH, "permission": "SKIP_CHANGE_REQUEST"}
REFUSAL = {
    "name": "PermissionError",
    "message": "You don't have the required permissions to perform this operation. To perform this action, you need "
    'the "SKIP_CHANGE_REQUEST" permission.',
}


def soon() -> float:
    return time.monotonic() + 60


def token_file(directory: Path) -> Path:
    path = directory / "token"
    path.write_text("user:secret")
    path.chmod(0o600)
    return path


@asynccontextmanager
async def unleash(
    directory: Path, permissions: list[dict[str, str]], feature: Any = FEATURE
) -> AsyncIterator[UnleashBackend]:
    """A backend of an Unleash whose environment `production` requires approvals; its account has `permissions`."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response(REFUSAL, status=403)

    def json(value: object) -> Any:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(value)

        return answer

    here = "/api/admin/projects/default"
    approvals = [
        {"environment": "development", "changeRequestEnabled": False},
        {"environment": "production", "changeRequestEnabled": True, "requiredApprovals": 1},
    ]
    app = web.Application()
    app.router.add_get("/api/admin/user", json({"user": {}, "permissions": permissions}))
    app.router.add_get(f"{here}/features/{REF.flag}", json(feature))
    app.router.add_get(f"{here}/change-requests/config", json(approvals))
    app.router.add_post(f"{here}/features/{REF.flag}/environments/production/off", refuse)
    runner, port = await listen(app, 0)
    backend = UnleashBackend(settings.Unleash(url=f"http://127.0.0.1:{port}/", token_file=token_file(directory)))
    try:
        yield backend
    finally:
        await backend.close()
        await runner.cleanup()


async def test_change_requests_are_announced_before_a_flip_and_named_by_its_refusal(tmp_path: Path) -> None:
    async with unleash(tmp_path, [SWITCH]) as backend:
        (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
        version = (await backend.read(REF, deadline=soon())).version
        with pytest.raises(Permission) as refused:
            await backend.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    assert "approved by a person" in problem
    assert str(refused.value) == problem


@pytest.mark.parametrize("permissions", [[SWITCH, SKIP], [{"permission": "ADMIN"}]], ids=["skips", "admin"])
async def test_an_account_that_may_skip_change_requests_can_flip(
    tmp_path: Path, permissions: list[dict[str, str]]
) -> None:
    async with unleash(tmp_path, permissions) as backend:
        assert (await backend.health([(REF, "off")], deadline=soon())).ok


@pytest.mark.parametrize(
    "elsewhere", [{"project": "other"}, {"environment": "development"}, {"permission": "UPDATE_FEATURE_STRATEGY"}]
)
async def test_a_permission_elsewhere_does_not_count(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    async with unleash(tmp_path, [{**SWITCH, **elsewhere}, SKIP]) as backend:
        (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "UPDATE_FEATURE_ENVIRONMENT" in problem


@pytest.mark.parametrize("feature", [[], {"environments": 1}, {"environments": [{"name": "production"}]}])
async def test_an_answer_of_another_kind_is_invalid(tmp_path: Path, feature: object) -> None:
    async with unleash(tmp_path, [SWITCH], feature) as backend:
        with pytest.raises(Invalid, match="admin API"):
            await backend.read(REF, deadline=soon())


def test_the_address_is_encrypted_and_the_token_its_owners_alone(tmp_path: Path) -> None:
    token = token_file(tmp_path)
    with pytest.raises(ConfigError, match="use https"):
        UnleashBackend(settings.Unleash(url="http://unleash.example.org", token_file=token))
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        UnleashBackend(settings.Unleash(url="https://unleash.example.org", token_file=token))
