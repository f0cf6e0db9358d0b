"""The task that publishes a process's heartbeats. It waits for the brokers alone; nothing waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from agent.heartbeats.heartbeat import EVERY, Heartbeat, changed, encode
from agent.logs.setup import log_event
from streams.errors import TopicError

LOOK_EVERY = 1.0
"""Seconds between looks for news that are worth a heartbeat of their own."""

_LEAVE_WITHIN = 0.5
"""Seconds for the leave: the process has END_WITHIN in all (shutdown.py), and without it is away after a while too."""

_logger = logging.getLogger(__name__)

Send = Callable[[bytes, bytes | None, float], Awaitable[object]]
"""Writes a record of this key, and value or none, within so many seconds; TopicError where the broker did not take it.
"""


class Heart:
    """Publishes what `about` says: every ten seconds, and within one when it changes."""

    def __init__(self, about: Callable[[], Heartbeat], send: Send) -> None:
        self._about = about
        self._send = send
        self._last: Heartbeat | None = None
        self._due = time.monotonic()

    async def run(self) -> None:
        """Until cancelled. What could not be written is logged and tried again; meanwhile others see us away."""
        while True:
            try:
                beat = self._about()
            except Exception as error:
                # Whatever fails in telling how it is must not end what turns flags back; others see this process away.
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
        """Tell that the process ends, if the brokers take it soon enough."""
        if self._last is None:
            return
        try:
            await self._send(self._last.id.encode(), None, _LEAVE_WITHIN)
        except TopicError as error:
            log_event(_logger, "heartbeat.failed", level=logging.WARNING, error=str(error))
