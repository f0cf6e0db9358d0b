"""The Remote Config REST API (v1) for one template: get, publish if unchanged, dry run, history.

https://firebase.google.com/docs/reference/remote-config/rest. This module never forces a publication and never uses the
API's rollback, which is forced too: they would undo what others have published since.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

import msgspec

from agent.backends.address import emulator_address
from agent.backends.google import GoogleToken
from agent.backends.http import Headers, Http, HttpAnswer, error_of
from agent.backends.json_answer import decoded
from agent.backends.remote_config.template import Template, number_of
from agent.backends.settings import RemoteConfig
from agent.errors import Invalid, Permission

SCOPE = "https://www.googleapis.com/auth/firebase.remoteconfig"
RIGHTS = (
    "the account needs the role Firebase Remote Config Admin (roles/cloudconfig.admin), or one with "
    "cloudconfig.configs.get and cloudconfig.configs.update"
)

_NAME = "Remote Config"
_SERVER = "https://firebaseremoteconfig.googleapis.com"
# The server sends an ETag only with a compressed answer, a known issue that the reference of the REST API mentions.
_HEADERS = {"Accept-Encoding": "gzip"}
_ERRORS = frozenset(range(400, 600))
_MISMATCH = b"VERSION_MISMATCH"
_MOST_VERSIONS = 300


class TemplateCopy(NamedTuple):
    """A template as it was read, and the ETag that a replacement must name; empty if the answer had none."""

    template: Template
    etag: str


class Version(NamedTuple):
    number: int
    description: str


class _Version(msgspec.Struct):
    number: str | int = msgspec.field(name="versionNumber")
    description: str = ""


class _Versions(msgspec.Struct):
    versions: list[_Version] = []


class Api:
    """One template of a project. Raises ConfigError if the credentials or the emulator cannot be used.

    Every call raises BackendError and ends by `deadline`, in seconds of `time.monotonic()`.
    """

    def __init__(self, settings: RemoteConfig) -> None:
        self._token: GoogleToken | None = None
        if settings.emulator is None:
            server, self._token = _SERVER, GoogleToken(settings.credentials, [SCOPE])
        else:
            server = f"http://{emulator_address(settings.emulator)}"
        self._http = Http(_NAME, self._token.headers if self._token is not None else _emulator_token)
        # The client template keeps the original path, without a namespace, which Google's clients use.
        place = "remoteConfig" if settings.template == "client" else "namespaces/firebase-server/remoteConfig"
        self._url = f"{server}/v1/projects/{quote(settings.project, safe='')}/{place}"

    async def get(self, known: Template | None = None, *, deadline: float) -> TemplateCopy:
        """Return the template as it is served now. If it is equal to `known`, return that, without parsing again."""
        answer = await self._request("GET", "", deadline)
        same = known is not None and known.text.encode() == answer.body
        template = known if known is not None and same else Template(answer.body)
        return TemplateCopy(template, answer.headers.get("ETag", ""))

    async def publish(self, body: bytes, etag: str, *, deadline: float) -> bool:
        """Replace the template that had this ETag; return False, with nothing done, if it has changed since."""
        return await self._put("", body, etag, deadline)

    async def dry_run(self, body: bytes, etag: str, *, deadline: float) -> bool:
        """Let the server validate a publication without making it; return False if the template has changed since."""
        return await self._put("?validateOnly=true", body, etag, deadline)

    async def versions(self, most: int = _MOST_VERSIONS, *, deadline: float) -> list[Version]:
        """Return the last versions, newest first; the server keeps 300."""
        answer = await self._request("GET", f":listVersions?pageSize={most}", deadline)
        wrong = f"{_NAME}: the list of versions cannot be read"
        found: _Versions = decoded(answer.body, _Versions, wrong)
        try:
            return [Version(number_of(version.number), version.description) for version in found.versions]
        except ValueError:
            raise Invalid(f"{wrong}: a version has no number") from None

    async def close(self) -> None:
        await self._http.close()
        if self._token is not None:
            await self._token.close()

    async def _put(self, query: str, body: bytes, etag: str, deadline: float) -> bool:
        if not etag:
            raise Invalid(f"{_NAME}: the template came without an ETag, and is not written without one")
        headers = {"If-Match": etag, "Content-Type": "application/json; charset=utf-8"}
        answer = await self._request("PUT", query, deadline, body, headers)
        return answer.status < 300

    async def _request(
        self, method: str, path: str, deadline: float, body: bytes | None = None, headers: Headers | None = None
    ) -> HttpAnswer:
        """Return a success or, for a PUT, a conflict.

        Sources differ on the status of a conflict: 409, 412, or 400 as gRPC maps it.
        """
        answer = await self._http.request(
            method,
            f"{self._url}{path}",
            deadline=deadline,
            body=body,
            headers={**_HEADERS, **(headers or {})},
            expected=_ERRORS,
        )
        if answer.status < 300 or (body is not None and (answer.status in (409, 412) or _MISMATCH in answer.body)):
            return answer
        error = error_of(_NAME, answer)
        raise Permission(f"{error}; {RIGHTS}") if isinstance(error, Permission) else error


async def _emulator_token(deadline: float, renew: bool) -> Headers:
    """Return what Firebase's emulators accept as an administrator."""
    return {"Authorization": "Bearer owner"}
