"""Carries out commands: checks each, makes the flag safe at most once, and says what became of it.

The executor trusts nothing but its own configuration and its public keys. A command can only make a managed flag safe,
only while it is fresh, and only if the flag is still the one that was judged: what a person changed is left alone.
Events are told after the flip, from the ledger, so that no slow audit log delays a flip and no crash loses a line.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec

from agent import audit, events
from agent.backends.contract import FlagBackend, FlagRef, FlagState, Outcome, Snapshot
from agent.commands import Command, Reason, Rejection, verify
from agent.errors import Ambiguous, BackendError, LedgerError
from agent.events import Event
from agent.flag_state import FlagStatus, FlagWatch
from agent.flip import Budget, Flip
from agent.keys import PublicKey
from agent.ledger import Entry, Ledger
from agent.logs import log_event
from agent.telling import Disk, Teller

log = logging.getLogger(__name__)

CLOCK_SKEW_S = 5.0
"""How far ahead of the executor's clock a command may be issued: two machines' clocks are never quite the same."""


@dataclass(frozen=True, slots=True)
class ManagedFlag:
    """A flag that commands may make safe: where it is, and which variant that is."""

    flag: str
    environment: str
    service: str
    backend: str
    safe: str


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What became of a command. `status` is the flag as it was last read, where it was.

    `final` is False where nothing was decided: the same bytes may be executed again until the command expires.
    """

    outcome: Outcome
    detail: str
    reason: Reason | None = None
    command: Command | None = None
    status: FlagStatus | None = None
    final: bool = True


class _Examined(NamedTuple):
    """The flag as it was found, and the first steps: types and data of events."""

    snapshot: Snapshot
    steps: list[tuple[str, dict[str, Any]]]


class Executor:
    """Executes commands on `flags`, the allow-list, whose `backend` names one of `backends`.

    `publics` are the accepted keys by id, `emit` hands an event to the audit log, `now` is Unix seconds. Flips of one
    flag follow each other at least `cooldown_s` apart; a command has its outcome, known or not, within `budget_s`.
    """

    def __init__(
        self,
        flags: Iterable[ManagedFlag],
        backends: Mapping[str, FlagBackend],
        publics: Mapping[str, PublicKey],
        ledger: Ledger,
        *,
        watch: FlagWatch,
        emit: Callable[[Event], Awaitable[None]],
        now: Callable[[], float],
        cooldown_s: float,
        budget_s: float = 5.0,
    ) -> None:
        # One flag may be watched in several services.
        self._flags: dict[FlagRef, list[ManagedFlag]] = {}
        for flag in flags:
            self._flags.setdefault(FlagRef(flag.flag, flag.environment), []).append(flag)
        self._backends = backends
        self._publics = publics
        self._ledger = ledger
        self._watch = watch
        self._now = now
        self._cooldown_s = cooldown_s
        self._budget_s = budget_s
        self._locks: defaultdict[FlagRef, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._inability = ""
        # Neither a step of the ledger nor one call to a backend may take more than a fifth of the whole.
        self._disk = Disk(budget_s / 5)
        self._teller = Teller(ledger, self._disk, emit)

    async def execute(self, raw: bytes) -> ExecutionResult:
        """Check and carry out one command as it came off the wire; the same bytes may be given again at any time."""
        checked = verify(raw, self._publics)
        if isinstance(checked, Rejection):
            await self._teller.tell(audit.refusal(raw, checked, self._now()))
            return ExecutionResult(Outcome.REJECTED, checked.detail, checked.reason)
        result = self._not_allowed(checked)
        entry = None
        if result is None:
            async with self._locks[FlagRef(checked.flag, checked.environment)]:
                result, entry = await self._carry_out(checked, raw)
        if entry is not None:
            await self._teller.announce(entry)
        if result.reason is not None:
            data = {"reason": result.reason, "detail": result.detail}
            await self._teller.tell(audit.step(checked, events.COMMAND_REJECTED, data, audit.digest(raw), self._now()))
        elif result.outcome is Outcome.REJECTED:
            event = audit.step(checked, events.INABILITY, {"reason": result.detail}, result.detail, self._now())
            # Whoever tries again every second need not be told every second.
            if event.id != self._inability:
                self._inability = event.id
                await self._teller.tell(event)
        return result

    async def recover(self) -> None:
        """Finish what an earlier process left open, and tell what it did not come to tell. Call before `execute`."""
        for entry in await self._disk.run(lambda: list(self._ledger.entries())):
            if not entry.settled:
                await self.execute(entry.opened.raw)
        await self.tell_pending()

    async def tell_pending(self) -> None:
        """Tell what could not be told before, or what another process has added to the ledger, such as a restore.

        Cheap where there is nothing: to be called every few seconds.
        """
        await self._teller.tell_pending()

    async def look(self, flag: str, environment: str) -> FlagStatus:
        """The flag as it is now, read between flips, never in the middle of one.

        Raises BackendError, and KeyError for a flag that is not managed.
        """
        ref = FlagRef(flag, environment)
        managed = self._flags[ref][0]
        async with self._locks[ref]:
            budget = Budget.of(self._budget_s)
            state = await self._backends[managed.backend].read(ref, deadline=budget.deadline)
            return self._watch.observe(ref, state, safe=managed.safe, at=self._now())

    def close(self) -> None:
        self._disk.close()

    def _not_allowed(self, command: Command) -> ExecutionResult | None:
        """The refusal of what is not on the allow-list."""
        managed = self._flags.get(FlagRef(command.flag, command.environment))
        if managed is None:
            return _rejected(command, Reason.UNKNOWN_FLAG, "the flag is not managed in this environment")
        if command.service not in {flag.service for flag in managed}:
            return _rejected(command, Reason.WRONG_SERVICE, f"the flag is not managed for service {command.service!r}")
        if command.backend != managed[0].backend:
            return _rejected(command, Reason.WRONG_BACKEND, f"the flag is kept in {managed[0].backend!r}")
        if command.target != managed[0].safe:
            return _rejected(command, Reason.WRONG_STATE, f"the flag's safe state is {managed[0].safe!r}")
        return None

    def _stale(self, command: Command) -> ExecutionResult | None:
        """The refusal of what is not valid now."""
        now = self._now()
        if command.issued_at > now + CLOCK_SKEW_S:
            ahead = f"issued {command.issued_at - now:.1f} s ahead of this clock, {CLOCK_SKEW_S:.0f} s are allowed"
            return _rejected(command, Reason.FROM_THE_FUTURE, ahead)
        if now >= command.expires_at:
            return _rejected(command, Reason.EXPIRED, f"expired {now - command.expires_at:.1f} s ago")
        return None

    async def _carry_out(self, command: Command, raw: bytes) -> tuple[ExecutionResult, Entry | None]:
        """With the flag's lock held: the result, and the entry whose events are to be told."""
        budget = Budget.of(self._budget_s)
        received = self._now()
        try:
            known = await self._disk.run(partial(self._ledger.get, command.id))
            if known is None:
                examined = await self._examine(command, budget)
                if isinstance(examined, ExecutionResult):
                    return examined, None
                first = [audit.step(command, kind, data, "0", received) for kind, data in examined.steps]
                entry, created = await self._disk.run(lambda: self._ledger.open(command, raw, examined.snapshot, first))
            else:
                entry, created = known, False
        except (BackendError, LedgerError) as error:
            return ExecutionResult(Outcome.REJECTED, str(error), command=command, final=False), None
        if entry.settled:
            return self._settled(command, entry, created), entry
        return await self._flip(command, entry, created, budget, received), entry

    async def _examine(self, command: Command, budget: Budget) -> ExecutionResult | _Examined:
        """Look at the clock and at the flag: a refusal, or the first steps, which settle it where no write follows."""
        stale = self._stale(command)
        if stale is not None:
            return stale
        ref = FlagRef(command.flag, command.environment)
        backend = self._backends[command.backend]
        snapshot = await budget.patiently(lambda: backend.snapshot(ref, deadline=budget.deadline))
        status = self._observe(command, snapshot.state)
        found = audit.found(status)
        received = (events.COMMAND_RECEIVED, {"command": msgspec.to_builtins(command)})
        if status.safe:
            return _Examined(snapshot, [received, (events.FLAG_ALREADY, found)])
        last = self._ledger.last_flip(command.environment, command.flag)
        since = math.inf if last is None else self._now() - last
        if since < self._cooldown_s:
            detail = f"the flag was flipped {since:.1f} s ago, the least time between flips is {self._cooldown_s:g} s"
            return _rejected(command, Reason.COOLDOWN, detail)
        if status.version != command.flag_version:
            return _Examined(snapshot, [received, (events.FLAG_CONFLICT, {**found, "expected": command.flag_version})])
        return _Examined(snapshot, [received, (events.FLAG_SNAPSHOT, {**found, "raw": snapshot.state.raw})])

    async def _flip(
        self, command: Command, entry: Entry, created: bool, budget: Budget, received: float
    ) -> ExecutionResult:
        flip = Flip(
            self._backends[command.backend],
            command,
            entry.opened.snapshot,
            partial(self._written, command, entry),
            acknowledged=entry.find(events.FLAG_WRITTEN) is not None,
            certain=created,
        )
        try:
            outcome, state = await flip.settle(budget, lambda: self._stale(command) is None)
        except BackendError as error:
            if not (flip.may_have_written or isinstance(error, Ambiguous)):
                return ExecutionResult(Outcome.REJECTED, str(error), command=command, final=False)
            detail = f"{error}; {flip.detail}" if flip.detail else str(error)
            await self._record(entry, events.FLAG_AMBIGUOUS, {"detail": detail})
            # What has no read-back stays unknown however often it is tried.
            return ExecutionResult(Outcome.AMBIGUOUS, detail, command=command, final=not flip.readable)
        if outcome is Outcome.REJECTED:
            return self._stale(command) or _rejected(command, Reason.EXPIRED, "expired before it was written")
        status = self._observe(command, state) if state is not None else None
        found = {} if status is None else audit.found(status)
        if outcome is Outcome.APPLIED:
            took = {"took_s": round(self._now() - received, 6)}
            if flip.readable:
                await self._record(entry, events.FLAG_VERIFIED, {**found, **took})
            else:
                await self._record(entry, events.FLAG_UNVERIFIED, {**found, **took, "detail": flip.detail})
        elif outcome is Outcome.ALREADY:
            await self._record(entry, events.FLAG_ALREADY, found)
        else:
            await self._record(entry, events.FLAG_CONFLICT, {**found, "expected": command.flag_version})
        return ExecutionResult(outcome, flip.detail, command=command, status=status)

    def _settled(self, command: Command, entry: Entry, created: bool) -> ExecutionResult:
        """The result of a command that needs no write: decided just now, or a while ago."""
        last = entry.events[-1]
        status = self._watch.current(FlagRef(command.flag, command.environment))
        if not created:
            detail = f"carried out before: {last.type} at {last.time:.3f}"
            return ExecutionResult(Outcome.DUPLICATE, detail, Reason.DUPLICATE, command, status)
        if last.type == events.FLAG_ALREADY:
            return ExecutionResult(Outcome.ALREADY, "the flag is safe", command=command, status=status)
        detail = f"the flag is {last.data['flag_version']}, judged was {command.flag_version}"
        return ExecutionResult(Outcome.CONFLICT, detail, command=command, status=status)

    def _observe(self, command: Command, state: FlagState) -> FlagStatus:
        ref = FlagRef(command.flag, command.environment)
        return self._watch.observe(ref, state, safe=command.target, at=self._now())

    async def _written(self, command: Command, entry: Entry, state: FlagState | None, data: dict[str, Any]) -> None:
        # Seen here even if nobody reads it: a person who takes the write back at once makes a new version of the flag,
        # not the one that was judged.
        found = audit.found(self._observe(command, state)) if state is not None else {}
        await self._record(entry, events.FLAG_WRITTEN, {**found, **data})

    async def _record(self, entry: Entry, kind: str, data: dict[str, Any]) -> None:
        """Add a step. From here on a failing disk stops nothing: a re-delivery finds the write by reading back."""
        number = sum(event.type == kind for event in entry.events)
        event = audit.step(entry.command, kind, data, str(number), self._now())
        try:
            await self._disk.run(partial(self._ledger.append, entry, event))
        except LedgerError as error:
            log_event(log, "ledger.failed", level=logging.ERROR, command=entry.command.id, step=kind, error=str(error))


def _rejected(command: Command, reason: Reason, detail: str) -> ExecutionResult:
    return ExecutionResult(Outcome.REJECTED, detail, reason, command)
