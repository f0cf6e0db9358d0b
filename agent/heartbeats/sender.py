"""The task that publishes a process's heartbeats. It waits for the brokers only, and nothing waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from agent.heartbeats.heartbeat import EVERY, Heartbeat, changed, encode
from agent.logs.setup import log_event
from streams.errors import TopicError

LOOK_EVERY = 1.0
"""Seconds between checks for changes that are published at once."""

_LEAVE_WITHIN = 0.5
"""Seconds to publish that the process leaves; it has END_WITHIN in all (runtime/shutdown.py).

If this record is missing, the process counts as away after AWAY_AFTER all the same.
"""

_logger = logging.getLogger(__name__)

Send = Callable[[bytes, bytes | None, float], Awaitable[object]]
"""Writes a record (key, value or None) within so many seconds. Raises TopicError if the broker does not take it."""


class Heart:
    """Publishes the heartbeat that `about` returns: every ten seconds, and within one second of a change."""

    def __init__(self, about: Callable[[], Heartbeat], send: Send) -> None:
        self._about = about
        self._send = send
        self._last: Heartbeat | None = None
        self._due = time.monotonic()

    async def run(self) -> None:
        """Publish until cancelled. A failed write is logged and tried again; others see this process away meanwhile."""
        while True:
            try:
                beat = self._about()
            except Exception as error:
                # A failure to make a heartbeat must not end the roles; other processes see this one away.
                log_event(_logger, "heartbeat.failed", level=logging.ERROR, error=repr(error))
            else:
                if time.monotonic() >= self._due or changed(self._last, beat):
                    await self._publish(beat)
            await asyncio.sleep(LOOK_EVERY)

    async def _publish(self, beat: Heartbeat) -> None:
        self._due = time.monotonic() + EVERY
        try:
            await self._send(beat.id.encode(), encode(beat), EVERY)
            self._last = beat
        except TopicError as error:
            log_event(_logger, "heartbeat.failed", level=logging.WARNING, error=str(error))

    async def leave(self) -> None:
        """Publish that the process ends, if the brokers take the record soon enough."""
        if self._last is None:
            return
        try:
            await self._send(self._last.id.encode(), None, _LEAVE_WITHIN)
        except TopicError as error:
            log_event(_logger, "heartbeat.failed", level=logging.WARNING, error=str(error))
