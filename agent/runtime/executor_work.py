"""The lasting work of an executor: commands, the states of flags, checks of what a flip needs."""

from __future__ import annotations

import asyncio
import time

from agent.after_flip.events import flips_event
from agent.executor.service import CHECK_EVERY, Flips
from agent.runtime.publisher import Publisher
from agent.runtime.tables import FollowedTables
from agent.state.flag_changes import change_of
from agent.state.flags import FlagStatus


class ExecutorWork:
    """Runs `flips` and publishes what comes of it. `topic` is that of commands."""

    def __init__(self, flips: Flips, tables: FollowedTables, publisher: Publisher, topic: str) -> None:
        self._flips = flips
        self._tables = tables
        self._publisher = publisher
        self._topic = topic
        self._recovered = asyncio.Event()

    async def execute(self, raw: bytes) -> None:
        """Carry out a command, once the flips that an earlier process left open are being finished."""
        await self._recovered.wait()
        for status in await self._flips.execute(raw):
            self._record(status)

    async def watch_flags(self) -> None:
        """Publish the state of every managed flag, at once if it changes. Until cancelled."""
        await self._tables.reader.read.wait()
        if not self._recovered.is_set():
            self._flips.recover()
            self._recovered.set()
        await self._flips.watch(self._publish)

    async def publish_results(self) -> None:
        """Publish the events of flips that are still to be published. Until cancelled."""
        await self._recovered.wait()
        await self._flips.publish_pending()

    async def check_backends(self) -> None:
        """Publish when something begins to stop flips, and when that is over. Until cancelled."""
        while True:
            before = self._flips.problems or []
            problems = await self._flips.check()
            if problems != before:
                self._publisher.event(flips_event(self._topic, problems, at=time.time()))
            await asyncio.sleep(CHECK_EVERY)

    async def _publish(self, status: FlagStatus) -> None:
        change = change_of(self._tables.state.flags.get((status.environment, status.flag)), status)
        self._record(status)
        if change is not None:
            self._publisher.event(change)

    def _record(self, status: FlagStatus) -> None:
        self._tables.state.see(status)
        self._publisher.flag(status)
