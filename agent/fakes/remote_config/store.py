"""The versions of one Remote Config template, as the service keeps them: the last 300, each with an opaque ETag."""

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
    """Members of a template are kept as the bytes that came, so that nothing in them is spelled anew."""

    def __init__(self) -> None:
        self._kept: list[dict[str, Any]] = []
        self._number = 0
        self._token = secrets.token_hex(6)

    @property
    def newest(self) -> dict[str, Any]:
        """The template that is served; empty where nothing was published yet."""
        return self._kept[-1] if self._kept else {}

    @property
    def etag(self) -> str:
        return self.etag_of(self.newest)

    def etag_of(self, template: Mapping[str, Any]) -> str:
        """The ETag of a version: of no meaning to those who get it."""
        number = int(template["version"]["versionNumber"]) if template else 0
        return f"etag-{self._token}-{number:x}"

    def at(self, number: str) -> dict[str, Any] | None:
        return next((kept for kept in self._kept if kept["version"]["versionNumber"] == number), None)

    def before(self, number: int) -> dict[str, Any]:
        """What was served before version `number`."""
        return self.at(str(number - 1)) or {}

    def listed(self) -> list[dict[str, Any]]:
        """What is told of each version, newest first."""
        return [kept["version"] for kept in reversed(self._kept)]

    def match(self, etag: str | None) -> None:
        """Raises Mismatch where that is not the newest version's; `*` is any."""
        if etag is None:
            raise Mismatch("[VERSION_MISMATCH]: No If-Match header found on UpdateRemoteConfig call.")
        if etag not in ("*", self.etag):
            raise Mismatch(f"[VERSION_MISMATCH]: Expected version does not match latest version {self._number}.")

    def publish(
        self, template: Mapping[str, Any], *, kind: str, user: str, description: str = "", source: str = ""
    ) -> dict[str, Any]:
        """Add a version of the members of `template`; returns it."""
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
        told = {name: value for name, value in version.items() if value}
        kept = {**{name: value for name, value in template.items() if name != "version"}, "version": told}
        self._kept = [*self._kept, kept][-MOST_VERSIONS:]
        return kept


def decoded(template: Mapping[str, Any]) -> dict[str, Any]:
    """The template as values."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(template))
    return found


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a template that was sent. Raises msgspec.DecodeError."""
    return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
