"""Unleash, by its admin API: a flag's environment is enabled (`on`) or disabled (`off`), or rolled out gradually.

Unleash compares nothing before a write (8.2.0 accepts any If-Match), so the definition's fingerprint is compared here
right before it: a person's change in the milliseconds between is overwritten. Disabling and enabling are idempotent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from agent.backends import settings as config
from agent.backends.contract import (
    Capabilities,
    Cas,
    FlagRef,
    FlagState,
    Granularity,
    Health,
    Outcome,
    ReadBack,
    Snapshot,
    Verdict,
    WriteResult,
)
from agent.backends.http import Headers, Http, checked_url
from agent.backends.secret_file import read_secret
from agent.backends.unleash_state import OFF, ON, ROLLOUT, Definition, Strategy, decode
from agent.errors import BackendError, Invalid, NotFound, Permission, Timeout, Transient, Unsent, Unsupported

_JSON = {"Content-Type": "application/json"}
_NO_CHANGE_REQUESTS = "SKIP_CHANGE_REQUEST"
"""The permission that Unleash names when it refuses a write because changes there must be approved."""
SWITCH = "UPDATE_FEATURE_ENVIRONMENT"
"""The permission that a flip needs."""
_AT_ONCE = 8
"""Flags that a health check reads at the same time."""

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


class Unleash:
    """A backend of one project and one environment of Unleash; the environment of a reference is not looked at.

    Raises ConfigError where the address is not secure or the token's file cannot be used. The repr shows no token.
    """

    capabilities = Capabilities(
        cas=Cas.NONE, percent=True, atomic_ledger=False, push=False, granularity=Granularity.FLAG
    )

    def __init__(self, settings: config.Unleash) -> None:
        self._base = f"{checked_url('unleash', settings.url).rstrip('/')}/api/admin"
        self._project = settings.project
        self._environment = settings.environment
        self._token = read_secret(settings.token_file)
        self._http = Http("Unleash", self._authorize)

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return (await self._definition(ref, deadline)).state()

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        # In either order a change between the two reads makes the snapshot one that no read-back takes for untouched,
        # or whose version no write finds.
        definition, identity = await asyncio.gather(self._definition(ref, deadline), self._latest_event(ref, deadline))
        return Snapshot(flag=ref.flag, environment=ref.environment, state=definition.state(), identity=identity)

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        _check_variant(ref, target)
        # Unleash has no place for the operation's id. The caller keeps the ledger.
        found = await self._before_write(ref, deadline)
        # To be off, whatever the strategies are, is to be disabled; `given` has the reasons against `on`.
        if found.state().variant == target:
            return WriteResult(Outcome.ALREADY, found.state())
        wanted = found.given(target)
        if found.version != expect:
            return _conflict(found, expect)
        await self._switch(ref, target, deadline)
        return WriteResult(Outcome.APPLIED, wanted.state())

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        found = await self.snapshot(snapshot.ref, deadline=deadline)
        if found.state.version == decode(snapshot.state.raw).with_enabled(target == ON).version:
            return ReadBack(Verdict.LANDED, found.state)
        same = (found.identity, found.state.version) == (snapshot.identity, snapshot.state.version)
        return ReadBack(Verdict.UNTOUCHED if same else Verdict.OTHER, found.state)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        """As the contract says. After a flip that is one write; after `set_percent` also one for each strategy.

        Raises Unsupported where a strategy of the snapshot is gone: another one would have another id.
        """
        ref, wanted = snapshot.ref, decode(snapshot.state.raw)
        found = await self._before_write(ref, deadline)
        if found.version == wanted.version:
            return WriteResult(Outcome.ALREADY, found.state())
        if found.version != expect:
            return _conflict(found, expect)
        if found.dependencies != wanted.dependencies:
            raise Unsupported(f"the parents of flag {ref.flag!r} were changed; put them back in Unleash")
        now = {strategy["id"]: strategy for strategy in found.strategies}
        before = {strategy["id"]: strategy for strategy in wanted.strategies}
        if not before.keys() <= now.keys():
            raise Unsupported(f"a strategy of flag {ref.flag!r} was deleted, and cannot come back with its id")
        # In an order in which the flag never gives more than before or after.
        if not wanted.enabled and found.enabled:
            await self._switch(ref, OFF, deadline)
        for name, strategy in now.items():
            if name not in before:
                await self._write("DELETE", f"{self._place(ref)}/strategies/{_quoted(name)}", None, deadline)
            elif strategy != before[name]:
                await self._patch(ref, name, strategy, before[name], deadline)
        if wanted.enabled and not found.enabled:
            await self._switch(ref, ON, deadline)
        return WriteResult(Outcome.APPLIED, await self.read(ref, deadline=deadline))

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        """As the contract says, of whole percents of `on`. The rollout's stickiness and group id stay.

        Raises Unsupported where the flag has other strategies than one gradual rollout.
        """
        if (variant, rest) != (ON, OFF):
            raise Unsupported(f"Unleash rolls out {ON!r} and leaves {OFF!r}, not {variant!r} and {rest!r}")
        if percent != int(percent):
            raise Unsupported(f"Unleash's SDKs know whole percents only, not {percent:g}")
        found, share = await self._before_write(ref, deadline), str(int(percent))
        if found.enabled and found.share == percent:
            return WriteResult(Outcome.ALREADY, found.state())
        if found.dependencies or (found.active and found.rollout is None):
            raise Unsupported(
                f"flag {ref.flag!r} has strategies of its own, or a parent: a percentage needs one gradual rollout "
                "without constraints, segments and variants"
            )
        if found.version != expect:
            return _conflict(found, expect)
        if found.rollout is None:
            await self._add_rollout(ref, share, deadline)
        elif found.share != percent:
            parameters = {**found.rollout.get("parameters", {}), "rollout": share}
            wanted = {**found.rollout, "parameters": parameters}
            await self._patch(ref, found.rollout["id"], found.rollout, wanted, deadline)
        if not found.enabled:
            await self._switch(ref, ON, deadline)
        return WriteResult(Outcome.APPLIED, await self.read(ref, deadline=deadline))

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> Health:
        """Whether Unleash answers, the token may switch, and each flag is there and can be given its target."""
        try:
            problems = await self._obstacles(deadline)
        except Timeout:
            raise
        except BackendError as error:
            return Health((str(error),))
        turns = asyncio.Semaphore(_AT_ONCE)
        found = await asyncio.gather(*(self._obstacle(ref, target, turns, deadline) for ref, target in wanted))
        return Health((*problems, *filter(None, found)))

    async def close(self) -> None:
        await self._http.close()

    async def _authorize(self, deadline: float, renew: bool) -> Headers:
        return {"Authorization": self._token}

    async def _get(self, path: str, deadline: float) -> bytes:
        return (await self._http.request("GET", f"{self._base}/{path}", deadline=deadline)).body

    async def _definition(self, ref: FlagRef, deadline: float) -> Definition:
        path = f"projects/{_quoted(self._project)}/features/{_quoted(ref.flag)}"
        try:
            feature = _decoded(await self._get(path, deadline), _Feature)
        except NotFound:
            raise NotFound(
                f"Unleash has no feature {ref.flag!r} in project {self._project!r}, or it is archived"
            ) from None
        for environment in feature.environments:
            if environment.name == self._environment:
                return Definition(
                    enabled=environment.enabled, strategies=environment.strategies, dependencies=feature.dependencies
                )
        raise NotFound(
            f"Unleash's project {self._project!r} has no environment {self._environment!r}; it has "
            f"{', '.join(environment.name for environment in feature.environments) or 'none'}"
        )

    async def _latest_event(self, ref: FlagRef, deadline: float) -> str:
        """The number of the latest event of the flag in this environment: another one after each change."""
        flag, environment = quote(f"IS:{ref.flag}", safe=""), quote(f"IS:{self._environment}", safe="")
        found = await self._get(f"search/events?feature={flag}&environment={environment}&limit=1", deadline)
        events = _decoded(found, _Events).events
        return str(events[0].id) if events else ""

    async def _before_write(self, ref: FlagRef, deadline: float) -> Definition:
        """The definition, read by an operation that has written nothing yet, and says so if that fails."""
        _check_time(deadline)
        try:
            return await self._definition(ref, deadline)
        except (Transient, Timeout) as error:
            raise Unsent(f"{error}; nothing was written") from error

    async def _switch(self, ref: FlagRef, to: str, deadline: float) -> None:
        await self._write("POST", f"{self._place(ref)}/{to}", None, deadline)

    async def _patch(self, ref: FlagRef, strategy: str, old: Strategy, new: Strategy, deadline: float) -> None:
        """Change members of a strategy by JSON Patch (RFC 6902), and no other ones.

        Not by PUT, which aiohttp sends again by itself where a kept connection turns out to be broken.
        """
        changes = [
            {"op": "replace", "path": f"/{key}", "value": value} for key, value in new.items() if old.get(key) != value
        ]
        await self._write("PATCH", f"{self._place(ref)}/strategies/{_quoted(strategy)}", changes, deadline)

    async def _add_rollout(self, ref: FlagRef, share: str, deadline: float) -> None:
        parameters = {"rollout": share, "stickiness": "default", "groupId": ref.flag}
        strategy = {"name": ROLLOUT, "constraints": [], "parameters": parameters}
        await self._write("POST", f"{self._place(ref)}/strategies", strategy, deadline)

    async def _write(self, method: str, path: str, body: object, deadline: float) -> None:
        content = None if body is None else msgspec.json.encode(body)
        try:
            await self._http.request(method, f"{self._base}/{path}", deadline=deadline, body=content, headers=_JSON)
        except Permission as error:
            if _NO_CHANGE_REQUESTS in str(error):
                raise Permission(self._approval()) from None
            raise

    def _place(self, ref: FlagRef) -> str:
        flag = f"projects/{_quoted(self._project)}/features/{_quoted(ref.flag)}"
        return f"{flag}/environments/{_quoted(self._environment)}"

    def _approval(self) -> str:
        return (
            f"Unleash wants changes in project {self._project!r}, environment {self._environment!r}, to be approved by "
            f"a person (change requests); give the token's account the permission {_NO_CHANGE_REQUESTS} there, or turn "
            "them off"
        )

    async def _obstacles(self, deadline: float) -> list[str]:
        """What would stop the flip of any flag."""
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

    async def _me(self, deadline: float) -> list[_Granted]:
        return _decoded(await self._get("user", deadline), _Me).permissions

    async def _change_requests(self, deadline: float) -> set[str]:
        """The environments of the project where changes need an approval. Unleash without that feature answers 404."""
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

    async def _obstacle(self, ref: FlagRef, target: str, turns: asyncio.Semaphore, deadline: float) -> str | None:
        """What would stop this flag's flip."""
        try:
            _check_variant(ref, target)
            async with turns:
                (await self._definition(ref, deadline)).given(target)
        except Timeout:
            raise
        except BackendError as error:
            return str(error) if ref.flag in str(error) else f"flag {ref.flag!r}: {error}"
        return None

    def __repr__(self) -> str:
        return f"Unleash({self._base}, project {self._project!r}, environment {self._environment!r})"


def _check_variant(ref: FlagRef, variant: str) -> None:
    if variant not in (ON, OFF):
        raise Invalid(f"flag {ref.flag!r} in Unleash has the variants {ON!r} and {OFF!r}, not {variant!r}")


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise Timeout("Unleash: the time was up before anything was sent")


def _conflict(found: Definition, expect: str) -> WriteResult:
    return WriteResult(Outcome.CONFLICT, found.state(), f"version is {found.version}, expected {expect}")


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        # The error alone, which quotes no value: of /user the answer holds the token.
        raise Invalid(f"Unleash: the answer is not what its admin API gives: {error}") from None
