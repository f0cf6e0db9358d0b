"""flipback's compacted topics as tables: read from the beginning, and kept up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent.logs.setup import log_event
from streams.kafka.reader import read_topic

_logger = logging.getLogger(__name__)


class TableReader:
    """Reads compacted topics to their ends, and on from there.

    `take` has, for each topic, the call that gets each record's value. `read` is set once all topics were read to their
    ends.
    """

    def __init__(self, take: Mapping[str, Callable[[bytes | None], object]], connection: Mapping[str, Any]) -> None:
        self._take = take
        self._connection = dict(connection)
        self._at_end: set[str] = set()
        self.read = asyncio.Event()

    def __iter__(self) -> Iterator[str]:
        return iter(self._take)

    async def follow(self, topic: str) -> None:
        """Follow a topic for ever. A record that `take` fails on is logged and left out."""
        async for read in read_topic(topic, self._connection):
            for record in read.records:
                try:
                    self._take[topic](record.value)
                except Exception as error:
                    # Raising would not help: the next process would read the same record, and end too.
                    fields = {"topic": topic, "offset": record.offset, "error": repr(error)[:500]}
                    log_event(_logger, "record.failed", level=logging.ERROR, **fields)
            if read.at_end:
                self._at_end.add(topic)
                if self._at_end == set(self._take):
                    self.read.set()
