"""From a command to its entry in the ledger: the checks that come before a flip, and the first steps on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from agent.backends.contract import FlagBackend, FlagRef, Snapshot
from agent.commands.command import Command, Reason, Rejection
from agent.commands.expiry import stale
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor import audit
from agent.executor.attempt import Attempts
from agent.executor.budget import Budget
from agent.executor.cooldown import Cooldown
from agent.executor.limits import FlipLimits
from agent.executor.result import ExecutionResult, rejected
from agent.executor.unforeseen import foreseen
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.storage.disk import Disk


class _Examined(NamedTuple):
    """The flag as it was found, and the first steps: types and data of events."""

    snapshot: Snapshot
    steps: list[tuple[str, dict[str, Any]]]


class EntryOpener:
    """Finds a command's entry in the ledger, or makes it if the command may write or needs no write.

    `now` is Unix seconds.
    """

    def __init__(
        self,
        backends: Mapping[str, FlagBackend],
        ledger: Ledger,
        disk: Disk,
        limits: FlipLimits,
        cooldown: Cooldown,
        attempts: Attempts,
        now: Callable[[], float],
    ) -> None:
        self._backends = backends
        self._ledger = ledger
        self._disk = disk
        self._limits = limits
        self._cooldown = cooldown
        self._attempts = attempts
        self._now = now

    async def open(
        self, command: Command, raw: bytes, budget: Budget, received: float
    ) -> tuple[Entry, bool] | ExecutionResult:
        """Return the entry, and whether it was made now, else the refusal. The flag's lock is held.

        Raises BackendError and LedgerError.
        """
        entry = await self._disk.run(partial(self._ledger.get, command.id))
        if entry is not None and not self._may_begin_again(entry, command):
            await self._record_repeated_order(entry, command, received)
            return entry, False
        examined = await self._examine(command, budget)
        if isinstance(examined, ExecutionResult):
            return examined
        if entry is not None and examined.steps[-1][0] == events.FLAG_CONFLICT:
            # The entry already says that the flag was changed.
            return entry, False
        number = 0 if entry is None else entry.round + 1
        name = audit.in_round(number, "0")
        first = [audit.step(command, kind, data, name, received) for kind, data in examined.steps]
        opened = await self._disk.run(partial(self._open, command, raw, examined.snapshot, first, number))
        if isinstance(opened, str):
            return rejected(command, Rejection(Reason.HALTED, opened))
        return opened

    def _may_begin_again(self, entry: Entry, command: Command) -> bool:
        """Did the entry end without a known write, and is the command, perhaps issued again, still valid?"""
        return entry.undone and stale(command, self._now()) is None

    async def _record_repeated_order(self, entry: Entry, command: Command, received: float) -> None:
        """Record who repeats an order that is not done yet, and why: the repeated order has the id of the first."""
        if entry.settled or not command.by_hand or command.evidence == entry.command.evidence:
            return
        data = {"command": msgspec.to_builtins(command)}
        event = audit.step(command, events.COMMAND_RECEIVED, data, f"again {command.issued_at!r}", received)
        if all(recorded.id != event.id for recorded in entry.events):
            await self._attempts.append(entry, event)

    async def _examine(self, command: Command, budget: Budget) -> ExecutionResult | _Examined:
        """Check the clock and read the flag. Return a refusal, or the first steps (all of them, if no write is due)."""
        refusal = stale(command, self._now())
        if refusal is not None:
            return rejected(command, refusal)
        ref = FlagRef(command.flag, command.environment)
        backend = self._backends[command.backend]
        with foreseen(command.backend):
            snapshot = await budget.patiently(lambda: backend.snapshot(ref, deadline=budget.deadline))
        status = self._attempts.observe(command, snapshot.state)
        found = audit.found(status)
        received = (events.COMMAND_RECEIVED, {"command": msgspec.to_builtins(command)})
        if status.safe:
            return _Examined(snapshot, [received, (events.FLAG_ALREADY, found)])
        if not command.by_hand:
            left = await self._disk.run(partial(self._cooldown.refusal, ref, self._now()))
            if left is not None:
                return rejected(command, left.rejection, retry_at=left.over_at)
        if status.version != command.flag_version:
            return _Examined(snapshot, [received, (events.FLAG_CONFLICT, {**found, "expected": command.flag_version})])
        return _Examined(snapshot, [received, (events.FLAG_SNAPSHOT, {**found, **audit.definition(snapshot.state)})])

    def _open(
        self, command: Command, raw: bytes, snapshot: Snapshot, first: list[Event], number: int
    ) -> tuple[Entry, bool] | str:
        """Enter a command in the ledger if it writes nothing or may write; else return why not. Blocks on the disk."""
        if first[-1].type != events.FLAG_SNAPSHOT:
            return self._ledger.open(command, raw, snapshot, first, number)
        with self._limits.admission(command, self._now()) as refusal:
            return refusal or self._ledger.open(command, raw, snapshot, first, number)
