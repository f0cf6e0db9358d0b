"""One attempt at a command that is in the ledger: the flip, with every step recorded.

An entry stays open while it is unknown whether its write landed, and is retried. An entry that certainly wrote nothing
is marked so: no later process then takes a person's change for the write of this command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agent.backends.contract import FlagBackend, FlagRef, FlagState, Outcome
from agent.commands.command import Command, Reason, Rejection
from agent.commands.expiry import stale
from agent.errors import Ambiguous, BackendError, LedgerError, Unforeseen
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor import audit
from agent.executor.ambiguity import AmbiguityStep, AmbiguousWrites
from agent.executor.budget import Budget
from agent.executor.cooldown import Cooldown
from agent.executor.flip import Flip
from agent.executor.limits import FlipLimits
from agent.executor.result import ExecutionResult, rejected, stopped
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.logs.setup import log_event
from agent.state.flags import FlagStatus, FlagWatch
from agent.storage.disk import Disk

log = logging.getLogger(__name__)

IN_FLIGHT_S = 60.0
"""Seconds after the expiry of a command until none of its writes can still be on its way: a call lasts 1 s."""


class Attempts:
    """Flips flags for commands that are in the ledger. `now` is Unix seconds."""

    def __init__(
        self,
        backends: Mapping[str, FlagBackend],
        ledger: Ledger,
        disk: Disk,
        limits: FlipLimits,
        cooldown: Cooldown,
        watch: FlagWatch,
        now: Callable[[], float],
    ) -> None:
        self._backends = backends
        self._ledger = ledger
        self._disk = disk
        self._limits = limits
        self._cooldown = cooldown
        self._watch = watch
        self._now = now
        self._ambiguous = AmbiguousWrites()

    async def flip(
        self, command: Command, entry: Entry, created: bool, budget: Budget, received: float
    ) -> ExecutionResult:
        """Write and read back, with the flag's lock held. `created`: the entry was just made and admitted."""
        flip = Flip(
            self._backends[command.backend],
            command,
            entry.opened.snapshot,
            partial(self._written, command, entry),
            acknowledged=entry.find(events.FLAG_WRITTEN) is not None,
            certain=created or entry.unwritten,
        )
        refusals: list[Rejection] = []
        changed: list[FlagStatus] = []
        admitted = created

        async def may_write() -> bool:
            nonlocal admitted
            refusal = stale(command, self._now())
            seen = self._watch.current(FlagRef(command.flag, command.environment))
            if not flip.may_have_written and seen is not None and seen.version != command.flag_version:
                # The flag was changed since a failed attempt, and perhaps changed back, which a write could not detect.
                changed.append(seen)
                return False
            if refusal is None and not admitted:
                halted = await self._disk.run(partial(self._admit, command))
                refusal = None if halted is None else Rejection(Reason.HALTED, halted)
            # The first write was just admitted; a second attempt must be admitted again.
            admitted = False
            if refusal is not None:
                refusals.append(refusal)
                return False
            await self._disk.run(partial(self._ledger.mark, entry, "maybe"))
            return True

        try:
            outcome, state = await flip.settle(budget, may_write)
        except (BackendError, LedgerError) as error:
            if flip.may_have_written or isinstance(error, Ambiguous):
                return await self._record_ambiguity(command, entry, flip, error)
            await self._unwritten(command, entry)
            return stopped(command, error)
        if changed:
            return await self._left_alone(command, entry, changed[-1])
        if outcome is Outcome.REJECTED:
            final = await self._refused(command, entry, refusals[-1], flip.may_have_written)
            return rejected(command, refusals[-1], final=final)
        self._ambiguous.resolved(entry)
        status = self.observe(command, state) if state is not None else None
        stands = status is not None and status.version == command.flag_version
        if outcome is Outcome.CONFLICT and state is not None and stands:
            # Somebody changed the flag and changed it back: that is a new version, to be judged on its own.
            status = self.observe(command, state, changed=True)
        await self._record_end(command, entry, outcome, status, flip, received)
        return ExecutionResult(outcome, flip.detail, command=command, status=status)

    async def append(self, entry: Entry, event: Event) -> None:
        """Record a step. A failing disk stops nothing: a re-delivery finds the write by reading back."""
        try:
            await self._disk.run(partial(self._ledger.append, entry, event))
        except LedgerError as error:
            self._failed(entry, event.type, error)

    def settled(self, command: Command, entry: Entry, created: bool) -> ExecutionResult:
        """Return the result of a command that needs no write: it was decided just now (`created`) or earlier."""
        last = entry.events[-1]
        status = self._watch.current(FlagRef(command.flag, command.environment))
        if not created:
            detail = f"carried out before: {last.type} at {last.time:.3f}"
            return ExecutionResult(Outcome.DUPLICATE, detail, Reason.DUPLICATE, command, status)
        if last.type == events.FLAG_ALREADY:
            return ExecutionResult(Outcome.ALREADY, "the flag is safe", command=command, status=status)
        detail = f"the flag is {last.data['flag_version']}, judged was {command.flag_version}"
        return ExecutionResult(Outcome.CONFLICT, detail, command=command, status=status)

    def observe(self, command: Command, state: FlagState, *, changed: bool = False) -> FlagStatus:
        """Update the flag's state with what was read; `changed`: it is known to be another version than before."""
        ref = FlagRef(command.flag, command.environment)
        return self._watch.observe(ref, state, safe=command.target, at=self._now(), changed=changed)

    def _admit(self, command: Command) -> str | None:
        """Return why a command that is in the ledger may not write now, if so. Blocks on the disk."""
        with self._limits.admission(command, self._now()) as refusal:
            return refusal

    async def _record_ambiguity(self, command: Command, entry: Entry, flip: Flip, error: Exception) -> ExecutionResult:
        """A write may have landed: record it at first, remind while it lasts, and give up in the end."""
        detail = f"{error}; {flip.detail}" if flip.detail else str(error)
        step = self._ambiguous.step_due(entry, self._now())
        if step is AmbiguityStep.AMBIGUOUS:
            await self._record(entry, events.FLAG_AMBIGUOUS, {"detail": detail})
        elif step is AmbiguityStep.UNRESOLVED:
            todo = "look at the flag: nobody knows whether it was written, and nothing more is tried by itself"
            await self._record(entry, events.FLAG_UNRESOLVED, {"detail": detail, "todo": todo})
        # Without a read-back the outcome stays unknown, however often it is tried.
        final = not flip.readable or step is AmbiguityStep.UNRESOLVED
        unforeseen = flip.unforeseen or isinstance(error, Unforeseen)
        return ExecutionResult(Outcome.AMBIGUOUS, detail, command=command, final=final, unforeseen=unforeseen)

    async def _left_alone(self, command: Command, entry: Entry, seen: FlagStatus) -> ExecutionResult:
        """Record that nothing was written, and that somebody changed the flag since it was judged."""
        outcome = Outcome.ALREADY if seen.safe else Outcome.CONFLICT
        await self._record_found(command, entry, outcome, audit.found(seen))
        detail = f"the flag is {seen.version}, judged was {command.flag_version}"
        return ExecutionResult(outcome, detail, command=command, status=seen)

    async def _refused(self, command: Command, entry: Entry, refusal: Rejection, may_have_written: bool) -> bool:
        """Record that no write is allowed now, while the flag reads as before. Return whether that is final."""
        if not may_have_written:
            await self._unwritten(command, entry)
            return True
        self._limits.release(command)
        if refusal.reason is not Reason.EXPIRED:
            return True
        if self._now() < command.expires_at + IN_FLIGHT_S:
            return False
        self._ambiguous.resolved(entry)
        await self._record(entry, events.FLAG_NOT_WRITTEN, {"detail": refusal.detail})
        return True

    async def _unwritten(self, command: Command, entry: Entry) -> None:
        """Mark that every attempt certainly failed, so that no later process takes a change of the flag for its own."""
        self._limits.release(command)
        try:
            await self._disk.run(partial(self._ledger.mark, entry, "never"))
        except LedgerError as error:
            self._failed(entry, "mark", error)

    async def _record_end(
        self, command: Command, entry: Entry, outcome: Outcome, status: FlagStatus | None, flip: Flip, received: float
    ) -> None:
        found = {} if status is None else audit.found(status)
        took = {"took_s": round(self._now() - received, 6)}
        if outcome is Outcome.APPLIED and flip.readable:
            await self._record(entry, events.FLAG_VERIFIED, {**found, **took})
        elif outcome is Outcome.APPLIED:
            await self._record(entry, events.FLAG_UNVERIFIED, {**found, **took, "detail": flip.detail})
        else:
            await self._record_found(command, entry, outcome, found)

    async def _record_found(self, command: Command, entry: Entry, outcome: Outcome, found: dict[str, Any]) -> None:
        if outcome is Outcome.ALREADY:
            await self._record(entry, events.FLAG_ALREADY, found)
        else:
            await self._record(entry, events.FLAG_CONFLICT, {**found, "expected": command.flag_version})

    async def _written(self, command: Command, entry: Entry, state: FlagState | None, data: dict[str, Any]) -> None:
        self._cooldown.flipped(FlagRef(command.flag, command.environment))
        # Observed here even if no read follows: if a person reverts the write at once, that is a new version of the
        # flag, not the one that was judged.
        found = audit.found(self.observe(command, state)) if state is not None else {}
        await self._record(entry, events.FLAG_WRITTEN, {**found, **data})

    async def _record(self, entry: Entry, kind: str, data: dict[str, Any]) -> None:
        await self.append(entry, audit.entry_step(entry, kind, data, self._now()))

    def _failed(self, entry: Entry, step: str, error: LedgerError) -> None:
        log_event(log, "ledger.failed", level=logging.ERROR, command=entry.command.id, step=step, error=str(error))
