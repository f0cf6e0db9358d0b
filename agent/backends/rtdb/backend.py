"""Firebase Realtime Database: a node for each flag, with the members of a flagd definition, over the REST interface.

The database compares and sets: a node is read with its ETag, and written only if it still has that ETag
(https://firebase.google.com/docs/database/rest/save-data#section-conditional-requests). The operation id is stored in
the node, so that one read shows both the state and the operation that wrote it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from agent.backends import flag_definition
from agent.backends import settings as config
from agent.backends.address import database_host, emulator_address
from agent.backends.contract import (
    BackendHealth,
    Capabilities,
    Cas,
    FlagRef,
    FlagState,
    Granularity,
    Outcome,
    ReadBack,
    Snapshot,
    Verdict,
    WriteResult,
)
from agent.backends.google import GoogleToken, refuse_emulators
from agent.backends.http import Headers, Http, HttpAnswer, error_of
from agent.backends.json_answer import decoded
from agent.backends.rtdb.node import Node, check_key, content, kept, node, state, version
from agent.backends.rtdb.stream import Stream
from agent.errors import (
    Auth,
    BackendError,
    ConfigError,
    Conflict,
    Invalid,
    NotFound,
    Permission,
    Timeout,
    Unsupported,
    nothing_sent,
)
from agent.logs.setup import log_event

log = logging.getLogger(__name__)

SCOPES = ("https://www.googleapis.com/auth/userinfo.email", "https://www.googleapis.com/auth/firebase.database")

_NO_ETAG = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
"""An ETag (SHA-1 in Base64) that no node has: a write with it is checked by the security rules, and then refused."""
_ATTEMPTS = 3
"""How many times one call reads and writes while others write the same node; then the caller decides."""
_CHECKS_AT_ONCE = 8
_RIGHTS = "firebasedatabase.instances.get and firebasedatabase.instances.update"

Edit = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class RealtimeDatabaseBackend:
    """A backend of one path in a database. It ignores the environment: each has a path, and so a backend, of its own.

    Raises ConfigError if the settings cannot be used.
    """

    capabilities = Capabilities(
        cas=Cas.NATIVE, percent=True, atomic_ledger=True, push=True, granularity=Granularity.FLAG, read_every=15.0
    )

    def __init__(self, settings: config.RealtimeDatabase) -> None:
        host = database_host(settings.url, emulated=settings.emulator is not None)
        self._uid = settings.uid
        self._path = _path(settings.path)
        query = {} if self._uid is None else {"auth_variable_override": json.dumps({"uid": self._uid})}
        self._name = f"Realtime Database {host}"
        self._token: GoogleToken | None = None
        if settings.emulator is None:
            refuse_emulators()
            self._server = f"https://{host}"
            self._token = GoogleToken(settings.credentials, SCOPES)
            self._http = Http(self._name, self._token.headers)
        else:
            self._server = f"http://{emulator_address(settings.emulator)}"
            query["ns"] = host.partition(".")[0]
            self._http = Http(self._name, _emulator_token)
        self._query = "?" + urlencode(query, quote_via=quote) if query else ""

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return (await self.snapshot(ref, deadline=deadline)).state

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        found = await self._get(ref, deadline)
        return Snapshot(flag=ref.flag, environment=ref.environment, state=state(found.definition), identity=found.etag)

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        return await self._edit(ref, lambda old: _all_to(old, target), expect, _flip(op_id), deadline, once=True)

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        found = await self._get(snapshot.ref, deadline)
        now = state(found.definition)
        wanted = kept(_all_to(msgspec.json.decode(snapshot.state.raw), target))
        if found.operation == _flip(op_id) and now.version == version(wanted):
            return ReadBack(Verdict.LANDED, now)
        return ReadBack(Verdict.UNTOUCHED if found.etag == snapshot.identity else Verdict.OTHER, now)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        old = msgspec.json.decode(snapshot.state.raw, type=dict[str, Any])
        # Not checked: the previous definition is restored whatever it was, so that every flip can be undone.
        return await self._edit(snapshot.ref, lambda _: old, expect, f"restore {op_id}", deadline, checked=False)

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        def edit(old: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**old, **flag_definition.percent_to(old, variant, rest, percent)}

        return await self._edit(ref, edit, expect, f"percent {op_id}", deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        gate = asyncio.Semaphore(_CHECKS_AT_ONCE)

        async def check(ref: FlagRef, target: str) -> BackendError | None:
            async with gate:
                try:
                    await self._check(ref, target, deadline)
                except BackendError as error:
                    return error
                return None

        found = [error for error in await asyncio.gather(*(check(*one) for one in wanted)) if error is not None]
        for error in found:
            if isinstance(error, Timeout):
                raise error
        # A problem that all flags have in common is reported once.
        return BackendHealth(tuple(dict.fromkeys(map(str, found))))

    async def follow(self, refs: Sequence[FlagRef], changed: Callable[[FlagRef], None]) -> None:
        def report(flags: frozenset[str] | None) -> None:
            for ref in refs:
                if flags is None or ref.flag in flags:
                    try:
                        changed(ref)
                    except Exception:
                        log_event(log, "listener.failed", level=logging.ERROR, flag=ref.flag)

        def refused(answer: HttpAnswer) -> BackendError:
            return self._refusal(answer, "read", self._path)

        await Stream(self._http, self._url(self._path), refused).listen(report)

    async def close(self) -> None:
        await self._http.close()
        if self._token is not None:
            await self._token.close()

    async def _edit(
        self,
        ref: FlagRef,
        edit: Edit,
        expect: str,
        operation: str,
        deadline: float,
        *,
        once: bool = False,
        checked: bool = True,
    ) -> WriteResult:
        """Write the edited definition if the version is `expect`. With `once`, an operation is not done twice."""
        sent = False
        for _ in range(_ATTEMPTS):
            # Nothing was written before this read: it is the first one, or follows a write that was refused.
            with nothing_sent():
                found = await self._get(ref, deadline)
            now = state(found.definition)
            # Checked after a refused write too: the HTTP layer may have sent the request twice.
            if found.operation == operation and (once or sent):
                return WriteResult(Outcome.DUPLICATE, now, "this operation was written before")
            new = kept(edit(found.definition))
            if checked:
                self._check_definition(ref, new)
            if new == found.definition:
                return WriteResult(Outcome.ALREADY, now)
            if now.version != expect:
                return WriteResult(Outcome.CONFLICT, now, f"version is {now.version}, expected {expect}")
            sent = True
            if await self._put(ref, content(new, operation, self._where(ref)), found.etag, deadline):
                return WriteResult(Outcome.APPLIED, state(new))
        raise Conflict(f"{self._where(ref)} was written by others {_ATTEMPTS} times in a row; nothing was written")

    async def _check(self, ref: FlagRef, target: str, deadline: float) -> None:
        """Raise a BackendError if a flip to `target` would fail.

        This includes a write that changes nothing: its ETag is one that no node has.
        """
        found = await self._get(ref, deadline)
        self._check_definition(ref, kept(_all_to(found.definition, target)))
        # Writes what is there already, so that it does no harm if the server does not compare ETags.
        same = content(found.definition, found.operation or "check", self._where(ref))
        if await self._put(ref, same, _NO_ETAG, deadline):
            raise Unsupported(f"{self._name} compares no ETags: of two writers the last would win unseen")

    def _check_definition(self, ref: FlagRef, definition: dict[str, Any]) -> None:
        broken = flag_definition.problem(definition)
        if broken:
            raise Invalid(f"{self._where(ref)}: {broken}")

    async def _get(self, ref: FlagRef, deadline: float) -> Node:
        """Read the flag's node. Raises Unsupported if the server sends no ETag: a write could not be conditional."""
        answer = await self._request("GET", ref, deadline, headers={"X-Firebase-ETag": "true"})
        wrong = f"{self._name} answers with something that is no JSON of a flag; is `url` that of a database?"
        value: Any = decoded(answer.body, Any, wrong)
        if value is None:
            raise NotFound(f"{self._name} has no flag {ref.flag!r} at /{'/'.join(self._path)}")
        etag = answer.headers.get("ETag")
        if etag is None:
            raise Unsupported(f"{self._name} gives no ETag, without which a write cannot be conditional")
        return node(value, etag, self._where(ref))

    async def _put(self, ref: FlagRef, body: bytes, etag: str, deadline: float) -> bool:
        """Write the node; return False, with nothing written, if it no longer has that ETag."""
        headers = {"if-match": etag, "Content-Type": "application/json"}
        return (await self._request("PUT", ref, deadline, body, headers)).status != 412

    async def _request(
        self, method: str, ref: FlagRef, deadline: float, body: bytes | None = None, headers: Headers | None = None
    ) -> HttpAnswer:
        path = [*self._path, check_key(ref.flag, "flag")]
        answer = await self._http.request(
            method,
            self._url(path),
            deadline=deadline,
            body=body,
            headers=headers,
            expected=frozenset({401, 412}),
        )
        if answer.status == 401:
            raise self._refusal(answer, "read" if method == "GET" else "write", path)
        return answer

    def _refusal(self, answer: HttpAnswer, what: str, path: Sequence[str]) -> BackendError:
        """Return the error of an answer. The database answers 401 to an unknown account, and also if rules refuse."""
        if answer.status != 401:
            return error_of(self._name, answer)
        if b"permission denied" in answer.body.lower():
            place = "/" + "/".join(path)
            who = "this account" if self._uid is None else f"uid {self._uid!r}"
            return Permission(f"{self._name}: the security rules do not let {who} {what} {place}; allow .{what} there")
        return Auth(
            f"{error_of(self._name, answer)}; the account needs a role of the project with {_RIGHTS}, such as "
            "roles/firebasedatabase.admin"
        )

    def _url(self, path: Sequence[str]) -> str:
        return f"{self._server}/{'/'.join(quote(key, safe='') for key in path)}.json{self._query}"

    def _where(self, ref: FlagRef) -> str:
        return f"{self._name}: flag {ref.flag!r}"


def _flip(op_id: str) -> str:
    return f"flip {op_id}"


def _all_to(definition: Mapping[str, Any], target: str) -> Mapping[str, Any]:
    safe = flag_definition.variant(definition) == target
    return definition if safe else {**definition, **flag_definition.all_to(target)}


async def _emulator_token(deadline: float, renew: bool) -> Headers:
    """Return what Firebase's emulators accept as an administrator."""
    return {"Authorization": "Bearer owner"}


def _path(text: str) -> list[str]:
    """Return the keys down to the flags' parent. Raises ConfigError if one of them is no key of the database."""
    keys = text.strip("/").split("/")
    try:
        return [check_key(key, "path") for key in keys]
    except Invalid as error:
        raise ConfigError(f"path {text!r} of a Realtime Database: {error}") from None
