"""From the ledger to the audit log: every step is told, in order, at least once, and no flip waits for it."""

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
"""Different problems of one command that are published; one whose words change each time would be without end."""

_COMMANDS = 1000
"""Commands whose problems are remembered."""


class EventOutbox:
    """Hands events to `emit`; what that fails to take stays in the ledger and is told later.

    Without `emit` all of it stays there, for a running executor to tell.
    """

    def __init__(
        self, ledger: Ledger, automation: Automation, disk: Disk, emit: Callable[[Event], Awaitable[None]] | None
    ) -> None:
        self._ledger = ledger
        self._automation = automation
        self._disk = disk
        self._emit = emit
        self._telling: set[tuple[str, int]] = set()
        self._untold: set[tuple[str, int]] = set()
        self._automation_lock = asyncio.Lock()
        self._problems: dict[str, set[str]] = {}

    async def tell(self, event: Event) -> bool:
        """Tell one event; False where that failed."""
        if self._emit is None:
            return False
        try:
            await self._emit(event)
        except Exception as error:
            log_event(log, "event.untold", level=logging.ERROR, type=event.type, id=event.id, error=repr(error))
            return False
        return True

    async def refused(self, command: Command, raw: bytes, refusal: Rejection, at: float) -> None:
        """Tell that a command, which came as `raw`, was refused."""
        data = {"reason": refusal.reason, "detail": refusal.detail}
        await self.tell(audit.step(command, COMMAND_REJECTED, data, audit.digest(raw), at))

    async def untrusted(self, raw: bytes, refusal: Rejection, at: float, suppressed: int) -> None:
        """Tell that bytes were refused which no known key has signed, after `suppressed` of which nothing is told."""
        await self.tell(audit.refusal(raw, refusal, at, suppressed))

    async def unable(self, command: Command, problem: str, at: float) -> None:
        """Publish, once, that a command cannot be carried out now, although it is tried again every second."""
        told = self._problems.setdefault(command.id, set())
        if problem in told or len(told) >= _PROBLEMS:
            return
        told.add(problem)
        while len(self._problems) > _COMMANDS:
            del self._problems[next(iter(self._problems))]
        await self.tell(audit.step(command, INABILITY, {"reason": problem}, problem, at))

    async def announce(self, entry: Entry) -> None:
        """Tell the entry's pending events, in order."""
        if self._emit is None:
            return
        command, pending = (entry.command.id, entry.round), entry.pending
        self._telling.add(command)
        self._untold.add(command)
        try:
            if not all([await self.tell(event) for event in pending]):
                return
            self._untold.discard(command)
            if pending:
                await self._disk.run(partial(self._ledger.announced, entry))
        except LedgerError as error:
            log_event(log, "ledger.failed", level=logging.ERROR, command=command[0], error=str(error))
        finally:
            self._telling.discard(command)

    async def tell_pending(self) -> None:
        """Tell what could not be told before, and what another process has added to the ledger."""
        changed = await self._disk.run(lambda: [(one.command.id, one.round) for one in self._ledger.changed()])
        for command, number in self._untold.union(changed) - self._telling:
            entry = await self._disk.run(partial(self._ledger.round, command, number))
            # A command under way tells its own steps, when the flip is over.
            if entry is not None and entry.settled:
                await self.announce(entry)
        await self.tell_automation()

    async def tell_automation(self) -> None:
        """Tell who halted and who resumed the automation."""
        async with self._automation_lock:
            before, pending = await self._disk.run(self._automation.pending)
            told = before
            for event in pending:
                if not await self.tell(event):
                    break
                told += 1
            if told > before:
                await self._disk.run(partial(self._automation.announced, told))
