"""The executor role: the Faust app that reads commands and passes them to `execute`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from streams.executor.orders import Orders
from streams.kafka.app import new_app
from streams.kafka.connection import Connection
from streams.kafka.reading import Delivery, Reading
from streams.kafka.topics import Topics
from streams.slices import Source

_BUFFERED_SLICES = 8


class ExecutorRole:
    """Reads the commands topic; see `streams.executor.orders.Orders` for `signed`, `execute` and `refuse`.

    Without a committed offset, reading starts `lookback` seconds before now. The topic has one partition, so one
    process acts and all others stand by.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        *,
        lookback: float,
        signed: Callable[[bytes], bool],
        execute: Callable[[bytes], Awaitable[None]],
        refuse: Callable[[Sequence[bytes]], None],
    ) -> None:
        # Commands expire, so an older one need not be read.
        reading = Reading(
            batched=frozenset({topics.commands}),
            lookback={topics.commands: lookback},
            committable=lambda source: self._orders.committable(source),
            on_start=self._assigned,
            on_revoke=lambda: self._orders.revoke(),
        )
        self._orders = Orders(signed=signed, execute=execute, refuse=refuse, positions=reading.positions)
        self.assigned = False
        self.app = new_app(f"{topics.prefix}-executor", connection, reading, buffer=_BUFFERED_SLICES)
        topic = self.app.topic(topics.commands, value_serializer="raw", key_serializer="raw")
        self.app.agent(topic, name="executor")(self._take)

    async def _assigned(self, offsets: Mapping[Source, int]) -> None:
        self._orders.assign(offsets)
        self.assigned = True

    async def _take(self, stream: object) -> None:
        try:
            async for event in stream.events():  # type: ignore[attr-defined]
                delivery: Delivery = event.value
                await self._orders.take(delivery)
        finally:
            self._orders.close()
