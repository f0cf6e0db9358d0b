"""Deletes the topics that a demo or a measurement has created."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streams.kafka.topics import TIMEOUT, admin_client


async def remove(names: Iterable[str], connection: dict[str, Any]) -> None:
    """Delete those of the topics that exist. Raises TopicError if the brokers cannot be reached."""
    async with admin_client(connection) as admin:
        existing = set(await admin.list_topics())
        doomed = [name for name in names if name in existing]
        if doomed:
            await admin.delete_topics(doomed, timeout_ms=int(TIMEOUT * 1000))
