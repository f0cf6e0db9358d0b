"""From the ledger to the audit log: every step is published, in order, at least once, and no flip waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from agent.commands.command import Command, Rejection
from agent.errors import LedgerError
from agent.events.cloudevents import COMMAND_REJECTED, INABILITY, Event
from agent.executor import audit
from agent.ledger.automation import Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.logs.setup import log_event
from agent.storage.disk import Disk

log = logging.getLogger(__name__)

_PROBLEMS = 8
"""Different problems that are published per command: one whose text changes each time would never end."""

_COMMANDS = 1000
"""Commands whose problems are remembered."""


class EventOutbox:
    """Hands events to `emit`; an event that `emit` fails to take stays in the ledger and is published later.

    Without `emit` all events stay there, for a running executor to publish.
    """

    def __init__(
        self, ledger: Ledger, automation: Automation, disk: Disk, emit: Callable[[Event], Awaitable[None]] | None
    ) -> None:
        self._ledger = ledger
        self._automation = automation
        self._disk = disk
        self._emit = emit
        self._under_way: set[tuple[str, int]] = set()
        self._unpublished: set[tuple[str, int]] = set()
        self._automation_lock = asyncio.Lock()
        self._problems: dict[str, set[str]] = {}

    async def publish(self, event: Event) -> bool:
        """Publish one event; return False if that failed."""
        if self._emit is None:
            return False
        try:
            await self._emit(event)
        except Exception as error:
            log_event(log, "event.untold", level=logging.ERROR, type=event.type, id=event.id, error=repr(error))
            return False
        return True

    async def publish_refusal(self, command: Command, raw: bytes, refusal: Rejection, at: float) -> None:
        """Publish that a command, which came as `raw`, was refused."""
        data = {"reason": refusal.reason, "detail": refusal.detail}
        await self.publish(audit.step(command, COMMAND_REJECTED, data, audit.digest(raw), at))

    async def publish_untrusted(self, raw: bytes, refusal: Rejection, at: float, suppressed: int) -> None:
        """Publish the refusal of bytes that no known key has signed; `suppressed` before it were not published."""
        await self.publish(audit.refusal(raw, refusal, at, suppressed))

    async def publish_inability(self, command: Command, problem: str, at: float) -> None:
        """Publish that a command cannot be executed now; repeats of the same problem are suppressed."""
        published = self._problems.setdefault(command.id, set())
        if problem in published or len(published) >= _PROBLEMS:
            return
        published.add(problem)
        while len(self._problems) > _COMMANDS:
            del self._problems[next(iter(self._problems))]
        await self.publish(audit.step(command, INABILITY, {"reason": problem}, problem, at))

    async def publish_entry(self, entry: Entry) -> None:
        """Publish the entry's pending events, in order."""
        if self._emit is None:
            return
        command, pending = (entry.command.id, entry.round), entry.pending
        self._under_way.add(command)
        self._unpublished.add(command)
        try:
            if not all([await self.publish(event) for event in pending]):
                return
            self._unpublished.discard(command)
            if pending:
                await self._disk.run(partial(self._ledger.announced, entry))
        except LedgerError as error:
            log_event(log, "ledger.failed", level=logging.ERROR, command=command[0], error=str(error))
        finally:
            self._under_way.discard(command)

    async def publish_pending(self) -> None:
        """Publish what could not be published before, and what another process has added to the ledger."""
        changed = await self._disk.run(lambda: [(one.command.id, one.round) for one in self._ledger.changed()])
        for command, number in self._unpublished.union(changed) - self._under_way:
            entry = await self._disk.run(partial(self._ledger.round, command, number))
            # A command under way publishes its own steps, after the flip.
            if entry is not None and entry.settled:
                await self.publish_entry(entry)
        await self.publish_automation()

    async def publish_automation(self) -> None:
        """Publish who halted and who resumed the automation."""
        async with self._automation_lock:
            before, pending = await self._disk.run(self._automation.pending)
            published = before
            for event in pending:
                if not await self.publish(event):
                    break
                published += 1
            if published > before:
                await self._disk.run(partial(self._automation.announced, published))
