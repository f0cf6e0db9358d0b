"""The requests to Unleash's admin API that a flip needs, for one project and one environment.

Tested with Unleash 8.2.0; https://docs.getunleash.io/reference/api/unleash
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from agent.backends import settings as config
from agent.backends.address import checked_url
from agent.backends.http import Headers, Http
from agent.backends.json_answer import decoded
from agent.backends.secret_file import read_secret
from agent.backends.shown import listed
from agent.backends.unleash.state import ROLLOUT, FeatureDefinition, Strategy
from agent.errors import NotFound, Permission

SWITCH = "UPDATE_FEATURE_ENVIRONMENT"
"""The permission that a flip needs."""
_NO_CHANGE_REQUESTS = "SKIP_CHANGE_REQUEST"
"""The permission that Unleash names when it refuses a write because changes must be approved."""
_JSON = {"Content-Type": "application/json"}

T = TypeVar("T")


class _Environment(msgspec.Struct):
    name: str
    enabled: bool
    strategies: list[Strategy] = []


class _Feature(msgspec.Struct):
    environments: list[_Environment]
    dependencies: list[dict[str, Any]] = []


class _Event(msgspec.Struct):
    id: int


class _Events(msgspec.Struct):
    events: list[_Event]


class _Granted(msgspec.Struct):
    permission: str
    project: str | None = None
    environment: str | None = None


class _Me(msgspec.Struct):
    permissions: list[_Granted]


class _ChangeRequests(msgspec.Struct, rename="camel"):
    environment: str
    change_request_enabled: bool = False


class Admin:
    """One account's access to an environment of a project. Operations raise BackendError and end by their deadline.

    Raises ConfigError if the address is not secure or the token's file cannot be used. The repr shows no token.
    """

    def __init__(self, settings: config.Unleash) -> None:
        self._base = f"{checked_url('unleash', settings.url).rstrip('/')}/api/admin"
        self._project = settings.project
        self._environment = settings.environment
        self._token = read_secret(settings.token_file)
        self._http = Http("Unleash", self._authorize)

    async def definition(self, flag: str, deadline: float) -> FeatureDefinition:
        path = f"projects/{_quoted(self._project)}/features/{_quoted(flag)}"
        try:
            feature = _decoded(await self._get(path, deadline), _Feature)
        except NotFound:
            raise NotFound(f"Unleash has no feature {flag!r} in project {self._project!r}, or it is archived") from None
        for environment in feature.environments:
            if environment.name == self._environment:
                return FeatureDefinition(
                    enabled=environment.enabled, strategies=environment.strategies, dependencies=feature.dependencies
                )
        raise NotFound(
            f"Unleash's project {self._project!r} has no environment {self._environment!r}; it has "
            f"{listed([environment.name for environment in feature.environments])}"
        )

    async def latest_event(self, flag: str, deadline: float) -> str:
        """Return the id of the latest event of the flag in this environment, which differs after each change."""
        of = f"feature={_quoted(f'IS:{flag}')}&environment={_quoted(f'IS:{self._environment}')}"
        found = await self._get(f"search/events?{of}&limit=1", deadline)
        events = _decoded(found, _Events).events
        return str(events[0].id) if events else ""

    async def switch(self, flag: str, to: str, deadline: float) -> None:
        await self._write("POST", f"{self._place(flag)}/{to}", None, deadline)

    async def patch_strategy(self, flag: str, strategy: str, old: Strategy, new: Strategy, deadline: float) -> None:
        """Change only those members of a strategy that differ, by JSON Patch (RFC 6902)."""
        changes = [
            {"op": "replace", "path": f"/{key}", "value": value} for key, value in new.items() if old.get(key) != value
        ]
        await self._write("PATCH", f"{self._place(flag)}/strategies/{_quoted(strategy)}", changes, deadline)

    async def add_rollout(self, flag: str, share: str, deadline: float) -> None:
        parameters = {"rollout": share, "stickiness": "default", "groupId": flag}
        strategy = {"name": ROLLOUT, "constraints": [], "parameters": parameters}
        await self._write("POST", f"{self._place(flag)}/strategies", strategy, deadline)

    async def delete_strategy(self, flag: str, strategy: str, deadline: float) -> None:
        await self._write("DELETE", f"{self._place(flag)}/strategies/{_quoted(strategy)}", None, deadline)

    async def _write(self, method: str, path: str, body: object, deadline: float) -> None:
        content = None if body is None else msgspec.json.encode(body)
        try:
            await self._http.request(method, f"{self._base}/{path}", deadline=deadline, body=content, headers=_JSON)
        except Permission as error:
            if _NO_CHANGE_REQUESTS in str(error):
                raise Permission(self._approval()) from None
            raise

    def _place(self, flag: str) -> str:
        feature = f"projects/{_quoted(self._project)}/features/{_quoted(flag)}"
        return f"{feature}/environments/{_quoted(self._environment)}"

    def _approval(self) -> str:
        return (
            f"Unleash wants changes in project {self._project!r}, environment {self._environment!r}, to be approved by "
            f"a person (change requests); give the token's account the permission {_NO_CHANGE_REQUESTS} there, or turn "
            "them off"
        )

    async def obstacles(self, deadline: float) -> list[str]:
        """Return what would stop the flip of every flag."""
        me, change_requests = await asyncio.gather(self._me(deadline), self._change_requests(deadline))
        problems = []
        if not self._may(me, SWITCH):
            problems.append(
                f"Unleash: the token may not enable and disable flags in project {self._project!r}, environment "
                f"{self._environment!r}; its account needs the permission {SWITCH} there"
            )
        if self._environment in change_requests and not self._may(me, _NO_CHANGE_REQUESTS):
            problems.append(self._approval())
        return problems

    async def close(self) -> None:
        await self._http.close()

    async def _authorize(self, deadline: float, renew: bool) -> Headers:
        return {"Authorization": self._token}

    async def _get(self, path: str, deadline: float) -> bytes:
        return (await self._http.request("GET", f"{self._base}/{path}", deadline=deadline)).body

    async def _me(self, deadline: float) -> list[_Granted]:
        return _decoded(await self._get("user", deadline), _Me).permissions

    async def _change_requests(self, deadline: float) -> set[str]:
        """Return the project's environments in which changes need an approval.

        An Unleash without that feature answers 404.
        """
        path = f"{self._base}/projects/{_quoted(self._project)}/change-requests/config"
        answer = await self._http.request("GET", path, deadline=deadline, expected=frozenset({403, 404}))
        if answer.status != 200:
            return set()
        found = _decoded(answer.body, list[_ChangeRequests])
        return {settings.environment for settings in found if settings.change_request_enabled}

    def _may(self, granted: Sequence[_Granted], permission: str) -> bool:
        return any(
            right.permission == "ADMIN"
            or (
                right.permission == permission
                and right.project in (None, "*", self._project)
                and right.environment in (None, "", "*", self._environment)
            )
            for right in granted
        )

    def __repr__(self) -> str:
        return f"{self._base}, project {self._project!r}, environment {self._environment!r}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _decoded(body: bytes, kind: type[T]) -> T:
    return decoded(body, kind, "Unleash: the answer is not what its admin API gives")
