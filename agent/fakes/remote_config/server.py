"""A fake Firebase Remote Config: its REST interface on loopback, for the client template and the server template.

Its answers follow https://firebase.google.com/docs/reference/remote-config/rest, and are tested with the real clients:
firebase-admin for Node.js (templates) and for Python (server templates). It has no permissions (any token is valid),
one project under every name, and nothing that is evaluated on phones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from agent.backends.remote_config.parameter import parameter_name
from agent.fakes.faults import FakeFault, FakeFaults, On
from agent.fakes.remote_config import rules
from agent.fakes.remote_config.store import Mismatch, Versions, decoded, members
from agent.fakes.server import listen

CLIENT, SERVER = "firebase", "firebase-server"

_REMEMBERED = 1000

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_PERSON, _CALLER = "person@example.org", "caller@example.iam.gserviceaccount.com"


class FakeRemoteConfig:
    """Both templates of a project. `conflict_status` is the status for a stale ETag: 409, 412 or 400."""

    def __init__(self, conflict_status: int = 409) -> None:
        self.faults = FakeFaults()
        self.port = 0
        self.writes = 0
        self.dry_runs = 0
        self.received: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        """The method, and the path with the query, of the last requests."""
        self.conflict_status = conflict_status
        self._templates = {CLIENT: Versions(), SERVER: Versions()}
        self._last_write = {CLIENT: 0, SERVER: 0}
        self._runner: web.AppRunner | None = None
        self._stopped = asyncio.Event()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; 0 takes a free port."""
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/v1/projects/{project}/remoteConfig{verb:(:[A-Za-z]+)?}", self._serve)
        app.router.add_route(
            "*", "/v1/projects/{project}/namespaces/{space}/remoteConfig{verb:(:[A-Za-z]+)?}", self._serve
        )
        app.router.add_get("/v1/projects/{project}/namespaces/{space}/{server:serverRemoteConfig}", self._serve)
        self._stopped = asyncio.Event()
        self._runner, self.port = await listen(app, port)

    async def stop(self) -> None:
        self._stopped.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def put(self, flag: str, variant: str) -> None:
        """Give `variant` ("on" or "off") to every subject, in both templates; create the parameter if it is missing."""
        value = {"value": "true" if variant == "on" else "false"}
        for space in self._templates:
            template = self.template(space)
            found = dict(rules.parameters(template)).get(parameter_name(flag))
            if found is None:
                found = template.setdefault("parameters", {})[parameter_name(flag)] = {}
            found |= {"defaultValue": value, "valueType": "BOOLEAN"}
            if "conditionalValues" in found:
                found["conditionalValues"] = dict.fromkeys(found["conditionalValues"], value)
            self.publish(template, space)

    def flags(self) -> dict[str, Any]:
        """Return all parameters as they are stored, by template."""
        return {space: dict(rules.parameters(self.template(space))) for space in self._templates}

    def template(self, space: str = CLIENT) -> dict[str, Any]:
        """Return the template as values, for a change and `publish`."""
        return decoded(self._templates[space].newest)

    def publish(self, template: Mapping[str, Any], space: str = CLIENT, description: str = "") -> None:
        """Publish a template, as a person in the console would, without checking it."""
        self._templates[space].publish(template, kind="INCREMENTAL_UPDATE", user=_PERSON, description=description)

    def history(self, space: str = CLIENT) -> list[dict[str, Any]]:
        """Return the description of each version, newest first."""
        return self._templates[space].listed()

    async def _serve(self, request: web.Request) -> web.Response:
        self.received.append((request.method, request.path_qs))
        verb = request.match_info.get("verb", "")
        dry = _flag(request, "validateOnly", "validate_only")
        on: On = "write" if verb == ":rollback" or (request.method == "PUT" and not dry) else "read"
        fault = self.faults.take(on)
        if fault is None:
            return await self._answer(request, verb, dry)
        return await self._faulty(request, verb, dry, on, fault)

    async def _faulty(self, request: web.Request, verb: str, dry: bool, on: On, fault: FakeFault) -> web.Response:
        if fault.kind in ("commit-then-fail", "commit-then-hang") or (fault.kind == "drop" and on == "write"):
            await self._answer(request, verb, dry)
        if fault.kind in ("status", "commit-then-fail"):
            headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            return _error(fault.status, "injected", headers)
        if fault.kind in ("hang", "commit-then-hang"):
            await self._stopped.wait()
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        if fault.kind in ("drop", "hang", "commit-then-hang"):
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        return await self._answer(request, verb, dry, lie=fault.kind == "lie")

    async def _answer(self, request: web.Request, verb: str, dry: bool, lie: bool = False) -> web.Response:
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return _error(401, "Request is missing required authentication credential.")
        space = request.match_info.get("space", CLIENT)
        if space not in self._templates:
            return _error(400, f"{space} is no namespace")
        if request.match_info.get("server"):
            if space != SERVER:
                return _error(400, "only the server template is read by servers")
            newest = self._served(space, lie)
            return _answered(request, rules.for_servers(decoded(newest)), self._templates[space].etag_of(newest))
        match request.method, verb:
            case "GET", "":
                return self._get(request, space, lie)
            case "PUT", "":
                return await self._put(request, space, dry, lie)
            case "GET", ":listVersions":
                return self._list(request, space, lie)
            case "POST", ":rollback":
                return await self._rollback(request, space, lie)
        return _error(404, "The requested URL was not found on this server.")

    def _served(self, space: str, lie: bool) -> dict[str, Any]:
        """Return the newest version; with `lie`, the one before the last write of a client."""
        last = self._last_write[space]
        return self._templates[space].before(last) if lie and last else self._templates[space].newest

    def _get(self, request: web.Request, space: str, lie: bool) -> web.Response:
        versions = self._templates[space]
        number = _query(request, "versionNumber", "version_number")
        found = self._served(space, lie) if number is None else versions.at(number)
        if found is None:
            return _error(404, "Requested entity was not found.")
        return _answered(request, found, versions.etag_of(found))

    async def _put(self, request: web.Request, space: str, dry: bool, lie: bool) -> web.Response:
        versions = self._templates[space]
        body = await request.read()
        try:
            sent: dict[str, Any] = {**members(body)}
            values = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return _error(400, "Invalid JSON payload received.")
        refused = rules.problem(values, versions.newest, server=space == SERVER)
        if refused is not None:
            return _error(400, refused)
        etag = request.headers.get("If-Match")
        try:
            versions.match(etag)
        except Mismatch as error:
            return _error(self.conflict_status, str(error))
        if dry:
            self.dry_runs += 1
            return _answered(request, sent, f"{versions.etag}-0")
        if lie:
            return _answered(request, sent, versions.etag)
        description = (values.get("version") or {}).get("description", "")
        kind = "FORCED_UPDATE" if etag == "*" else "INCREMENTAL_UPDATE"
        return self._written(request, space, versions.publish(sent, kind=kind, user=_CALLER, description=description))

    async def _rollback(self, request: web.Request, space: str, lie: bool) -> web.Response:
        versions = self._templates[space]
        try:
            asked = msgspec.json.decode(await request.read())
            number = str(asked["versionNumber"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return _error(400, "versionNumber is missing")
        found = versions.at(number)
        if found is None:
            return _error(404, "Requested entity was not found.")
        if lie:
            return _answered(request, found, versions.etag)
        description = f"Rollback to version {number}"
        kept = versions.publish(found, kind="ROLLBACK", user=_CALLER, description=description, source=number)
        return self._written(request, space, kept)

    def _written(self, request: web.Request, space: str, kept: dict[str, Any]) -> web.Response:
        self.writes += 1
        self._last_write[space] = int(kept["version"]["versionNumber"])
        return _answered(request, kept, self._templates[space].etag)

    def _list(self, request: web.Request, space: str, lie: bool) -> web.Response:
        found = self._templates[space].listed()
        newest = self._served(space, lie)
        most = int(newest["version"]["versionNumber"]) if newest else 0
        end = _query(request, "endVersionNumber")
        start_time, end_time = _query(request, "startTime"), _query(request, "endTime")
        found = [
            version
            for version in found
            if int(version["versionNumber"]) <= min(most, int(end or most))
            and (start_time is None or _time(version["updateTime"]) >= _time(start_time))
            and (end_time is None or _time(version["updateTime"]) < _time(end_time))
        ]
        size, begin = int(_query(request, "pageSize") or 300), int(_query(request, "pageToken") or 0)
        page = {"versions": found[begin : begin + size], "nextPageToken": str(begin + size)}
        if begin + size >= len(found):
            del page["nextPageToken"]
        return _json(page)


def _answered(request: web.Request, body: object, etag: str) -> web.Response:
    """Make an answer. It has an ETag only if the client asks for compression, as in the real service."""
    compressed = "gzip" in request.headers.get("Accept-Encoding", "")
    response = _json(body, headers={"ETag": etag} if compressed else {})
    if compressed:
        response.enable_compression(web.ContentCoding.gzip)
    return response


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}
    return _json({"error": error}, status, headers)


def _query(request: web.Request, *names: str) -> str | None:
    return next((request.query[name] for name in names if request.query.get(name)), None)


def _flag(request: web.Request, *names: str) -> bool:
    return (_query(request, *names) or "").lower() == "true"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
