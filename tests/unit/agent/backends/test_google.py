"""Credentials for Google's flag systems, in calls with a short deadline."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from agent.backends import google
from agent.backends.google import GoogleToken


async def test_a_search_for_credentials_that_outlasts_one_call_serves_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    found, searches = threading.Event(), 0
    expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)

    def search(scopes: list[str]) -> object:
        nonlocal searches
        searches += 1
        found.wait(60)
        return SimpleNamespace(token="warm", expiry=expiry)  # noqa: S106 - no secret

    monkeypatch.setattr(google, "_default", search)
    token = GoogleToken(None, ["scope"])
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await token.headers(0.0)
    found.set()
    assert await token.headers(0.0) == {"Authorization": "Bearer warm"}
    assert searches == 1
    await token.close()
