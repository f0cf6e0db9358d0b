"""The executor role: the Faust app that hands commands to whoever carries them out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from streams.app import new_app
from streams.connection import Connection
from streams.reading import Reading
from streams.slices import Source
from streams.topics import Topics

AT_ONCE = 8
"""Commands under way at the same time. Flags that fail together fire in the same second, and one after the other the
last would wait for the disk, the backend and the audit log of all before it."""


class ExecutorRole:
    """Reads the commands topic. `execute` is given the raw record and must not raise.

    It is called in the order of the log, for up to `AT_ONCE` commands before the first has returned.

    There is one partition, so one process acts and every other replica stands by.
    """

    def __init__(
        self, connection: Connection, topics: Topics, *, lookback: float, execute: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._execute = execute
        # Commands expire, so without a committed offset reading starts no further back than they live.
        reading = Reading(lookback={topics.commands: lookback}, on_start=self._assigned)
        self.assigned = False
        self.app = new_app(f"{topics.prefix}-executor", connection, reading, buffer=64)
        topic = self.app.topic(topics.commands, value_serializer="raw", key_serializer="raw")
        self.app.agent(topic, name="executor", concurrency=AT_ONCE)(self._take)

    async def _assigned(self, offsets: Mapping[Source, int]) -> None:
        self.assigned = True

    async def _take(self, stream: object) -> None:
        async for event in stream.events():  # type: ignore[attr-defined]
            await self._execute(event.value or b"")
