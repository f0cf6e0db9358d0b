"""The versions of one Remote Config template, as the service keeps them: the last 300, each with an ETag."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

MOST_VERSIONS = 300


class Mismatch(Exception):
    """The ETag is not that of the newest version."""


class Versions:
    """The versions. Members of a template are kept as the bytes that were sent, so that nothing is reformatted."""

    def __init__(self) -> None:
        self._kept: list[dict[str, Any]] = []
        self._number = 0
        self._token = secrets.token_hex(6)

    @property
    def newest(self) -> dict[str, Any]:
        """Return the template that is served; empty if nothing was published yet."""
        return self._kept[-1] if self._kept else {}

    @property
    def etag(self) -> str:
        return self.etag_of(self.newest)

    def etag_of(self, template: Mapping[str, Any]) -> str:
        """Return the ETag of a version, which is opaque to clients."""
        number = int(template["version"]["versionNumber"]) if template else 0
        return f"etag-{self._token}-{number:x}"

    def at(self, number: str) -> dict[str, Any] | None:
        return next((kept for kept in self._kept if kept["version"]["versionNumber"] == number), None)

    def before(self, number: int) -> dict[str, Any]:
        """Return the template before version `number`."""
        return self.at(str(number - 1)) or {}

    def listed(self) -> list[dict[str, Any]]:
        """Return the description of each version, newest first."""
        return [kept["version"] for kept in reversed(self._kept)]

    def match(self, etag: str | None) -> None:
        """Raise Mismatch if this is not the newest version's ETag; `*` matches any version."""
        if etag is None:
            raise Mismatch("[VERSION_MISMATCH]: No If-Match header found on UpdateRemoteConfig call.")
        if etag not in ("*", self.etag):
            raise Mismatch(f"[VERSION_MISMATCH]: Expected version does not match latest version {self._number}.")

    def publish(
        self, template: Mapping[str, Any], *, kind: str, user: str, description: str = "", source: str = ""
    ) -> dict[str, Any]:
        """Add a version with the members of `template`; return it."""
        self._number += 1
        version = {
            "versionNumber": str(self._number),
            "updateTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "updateUser": {"email": user},
            "description": description,
            "updateOrigin": "REST_API",
            "updateType": kind,
            "rollbackSource": source,
        }
        given = {name: value for name, value in version.items() if value}
        kept = {**{name: value for name, value in template.items() if name != "version"}, "version": given}
        self._kept = [*self._kept, kept][-MOST_VERSIONS:]
        return kept


def decoded(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template as values."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(template))
    return found


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a template that was sent. Raises msgspec.DecodeError if it is no object."""
    return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
