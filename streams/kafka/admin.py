"""Removing topics that were made for a short purpose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streams.kafka.topics import TIMEOUT, administrator


async def remove(names: Iterable[str], connection: dict[str, Any]) -> None:
    """Delete those of the topics that exist; TopicError when the brokers cannot be reached."""
    async with administrator(connection) as admin:
        there = set(await admin.list_topics())
        wanted = [name for name in names if name in there]
        if wanted:
            await admin.delete_topics(wanted, timeout_ms=int(TIMEOUT * 1000))
