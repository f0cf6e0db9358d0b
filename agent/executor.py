"""Carries out commands: checks each, makes the flag safe at most once, and says what became of it.

The executor trusts nothing but its own configuration, its public keys and its ledger. A command can only make a managed
flag safe, only while it is fresh, and only if the flag is still the one that was judged: what a person changed is left
alone. How much is done without a person is limited (agent.breaker).
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

from agent import audit, automation, events
from agent.allowlist import AllowList, ManagedFlag, stale
from agent.automation import Automation
from agent.backends.contract import FlagBackend, FlagRef, FlagState, Outcome, Snapshot
from agent.breaker import Breaker, Limits
from agent.commands import Command, Reason, Rejection, verify
from agent.errors import Ambiguous, BackendError, LedgerError
from agent.events import Event
from agent.flag_state import FlagStatus, FlagWatch
from agent.flip import Budget, Flip
from agent.groups import Groups
from agent.keys import PublicKey
from agent.ledger import Entry, Ledger
from agent.logs import log_event
from agent.telling import Disk, Teller

log = logging.getLogger(__name__)


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

    `publics` are the accepted keys by id, `emit` hands an event to the audit log, `now` is Unix seconds. Without `emit`
    events are left in the ledger for another executor to tell, and refusals are only returned. Flips of one flag follow
    each other at least `cooldown_s` apart, all of them keep within `limits`, but for those that a person ordered; a
    command has its outcome, known or not, within `budget_s`.
    """

    def __init__(
        self,
        flags: Iterable[ManagedFlag],
        backends: Mapping[str, FlagBackend],
        publics: Mapping[str, PublicKey],
        ledger: Ledger,
        automation: Automation,
        limits: Limits,
        *,
        watch: FlagWatch,
        emit: Callable[[Event], Awaitable[None]] | None,
        now: Callable[[], float],
        cooldown_s: float,
        budget_s: float = 5.0,
    ) -> None:
        flags = list(flags)
        self._allowed = AllowList(flags)
        self._backends = backends
        self._publics = publics
        self._ledger = ledger
        self._watch = watch
        self._now = now
        self._cooldown_s = cooldown_s
        self._budget_s = budget_s
        self._locks: defaultdict[FlagRef, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unsent: set[str] = set()
        self._finishing = asyncio.Lock()
        # Neither a step of the ledger nor one call to a backend may take more than a fifth of the whole.
        self._disk = Disk(budget_s / 5)
        self._automation = automation
        companions = {flag.ref: [FlagRef(name, flag.environment) for name in flag.together] for flag in flags}
        self._breaker = Breaker(ledger, automation, limits, companions, watch)
        self._groups = Groups(ledger, self._allowed)
        self._teller = Teller(ledger, automation, self._disk, emit)

    async def execute(self, raw: bytes) -> ExecutionResult:
        """Check and carry out one command as it came off the wire; the same bytes may be given again at any time."""
        checked = verify(raw, self._publics)
        if isinstance(checked, Rejection):
            await self._teller.tell(audit.refusal(raw, checked, self._now()))
            return ExecutionResult(Outcome.REJECTED, checked.detail, checked.reason)
        return await self._execute(checked, raw)

    async def recover(self) -> None:
        """Finish what an earlier process left open, and tell what it did not come to tell. Call before `execute`."""
        entries = await self._disk.run(lambda: list(self._ledger.entries()))
        self._groups.recover(entries, self._now())
        for entry in entries:
            if not entry.settled:
                # It was checked before it was entered; a person's key for the occasion is gone by now.
                await self._execute(entry.command, entry.opened.raw)
        await self.tell_pending()

    async def tell_pending(self) -> None:
        """Tell what could not be told before, or what another process has added to the ledger, such as a restore.

        Cheap where there is nothing: to be called every few seconds.
        """
        await self._teller.tell_pending()
        await self._finish_groups()

    async def halted(self) -> str | None:
        """Why nothing is done without a person, if so. Raises LedgerError."""
        halt = await self._disk.run(self._automation.halted)
        return automation.words(halt) if halt is not None else None

    async def look(self, flag: str, environment: str) -> FlagStatus:
        """The flag as it is now, read between flips, never in the middle of one.

        Raises BackendError, and KeyError for a flag that is not managed.
        """
        ref = FlagRef(flag, environment)
        managed = self._allowed[ref]
        async with self._locks[ref]:
            budget = Budget.of(self._budget_s)
            while True:
                before = self._watch.current(ref)
                state = await self._backends[managed.backend].read(ref, deadline=budget.deadline)
                # Another executor may have flipped the flag meanwhile; what was read before that is no new version.
                if not self._watch.overtaken(ref, before, state):
                    break
            return self._watch.observe(ref, state, safe=managed.safe, at=self._now())

    def close(self) -> None:
        self._disk.close()

    async def _execute(self, command: Command, raw: bytes) -> ExecutionResult:
        """Carry out a command that a known key has signed, and tell what came of it."""
        refusal, entry = self._allowed.refusal(command), None
        if refusal is not None:
            result = _rejected(command, refusal)
        else:
            async with self._locks[FlagRef(command.flag, command.environment)]:
                result, entry = await self._carry_out(command, raw)
        if entry is not None:
            await self._teller.announce(entry)
        if result.reason is not None:
            await self._teller.refused(command, raw, Rejection(result.reason, result.detail), self._now())
        elif result.outcome is Outcome.REJECTED:
            await self._teller.unable(command, result.detail, self._now())
        if result.reason is Reason.HALTED:
            await self._teller.tell_automation()
        # What expired is told by that name, and what was done before has its outcome.
        refused = result.reason not in (None, Reason.DUPLICATE, Reason.EXPIRED)
        self._groups.note(command, refused=refused)
        await self._finish_groups()
        return result

    async def _finish_groups(self) -> None:
        if not self._groups.open:
            return
        try:
            # Several commands may be under way, and an incident is done once.
            async with self._finishing:
                finished = await self._disk.run(lambda: self._groups.finished(self._now()))
            for entry in finished:
                await self._teller.announce(entry)
        except LedgerError as error:
            log_event(log, "ledger.failed", level=logging.ERROR, step=events.INCIDENT_DONE, error=str(error))

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
                opened = await self._disk.run(partial(self._open, command, raw, examined.snapshot, first))
                if isinstance(opened, str):
                    return _rejected(command, Rejection(Reason.HALTED, opened)), None
                entry, created = opened
            else:
                entry, created = known, False
                await self._ordered_again(entry, command, received)
            snapshot = await self._judged_anew(entry, command, budget) if entry.settled and not created else None
        except (BackendError, LedgerError) as error:
            return ExecutionResult(Outcome.REJECTED, str(error), command=command, final=False), None
        if entry.settled:
            return self._settled(command, entry, created), entry
        return await self._flip(command, entry, snapshot or entry.opened.snapshot, created, budget, received), entry

    async def _judged_anew(self, entry: Entry, command: Command, budget: Budget) -> Snapshot | None:
        """Open a conflict again whose flag is the one that was judged after all, and return the flag as it is now.

        None where the entry stays settled: the version of a flag that somebody changed and changed back is another one.
        """
        if entry.events[-1].type != events.FLAG_CONFLICT or stale(command, self._now()) is not None:
            return None
        backend, ref = self._backends[command.backend], FlagRef(command.flag, command.environment)
        snapshot = await budget.patiently(lambda: backend.snapshot(ref, deadline=budget.deadline))
        status = self._observe(command, snapshot.state)
        if (status.version, snapshot.state.version) != (command.flag_version, entry.opened.snapshot.state.version):
            return None
        number = sum(event.type == events.FLAG_SNAPSHOT for event in entry.events)
        data = {**audit.found(status), **audit.definition(snapshot.state)}
        step = audit.step(command, events.FLAG_SNAPSHOT, data, str(number), self._now())
        await self._disk.run(partial(self._ledger.append, entry, step))
        return snapshot

    async def _ordered_again(self, entry: Entry, command: Command, received: float) -> None:
        """Write down who gives an order once more that is not done yet, and why: by its id it is the first one."""
        if entry.settled or not command.by_hand or command.evidence == entry.command.evidence:
            return
        data = {"command": msgspec.to_builtins(command)}
        event = audit.step(command, events.COMMAND_RECEIVED, data, f"again {command.issued_at!r}", received)
        if all(known.id != event.id for known in entry.events):
            await self._append(entry, event)

    async def _examine(self, command: Command, budget: Budget) -> ExecutionResult | _Examined:
        """Look at the clock and at the flag: a refusal, or the first steps, which settle it where no write follows."""
        refusal = stale(command, self._now())
        if refusal is not None:
            return _rejected(command, refusal)
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
        if since < self._cooldown_s and not command.by_hand:
            detail = f"the flag was flipped {since:.1f} s ago, the least time between flips is {self._cooldown_s:g} s"
            return _rejected(command, Rejection(Reason.COOLDOWN, detail))
        if status.version != command.flag_version:
            return _Examined(snapshot, [received, (events.FLAG_CONFLICT, {**found, "expected": command.flag_version})])
        return _Examined(snapshot, [received, (events.FLAG_SNAPSHOT, {**found, **audit.definition(snapshot.state)})])

    def _open(self, command: Command, raw: bytes, snapshot: Snapshot, first: list[Event]) -> tuple[Entry, bool] | str:
        """Enter a command in the ledger, if it writes nothing or may write; else why it may not. Blocks on the disk."""
        if first[-1].type != events.FLAG_SNAPSHOT:
            return self._ledger.open(command, raw, snapshot, first)
        with self._breaker.admission(command, self._now()) as refusal:
            return refusal or self._ledger.open(command, raw, snapshot, first)

    def _admit(self, command: Command) -> str | None:
        """Why a command that is in the ledger may not write now. Blocks on the disk."""
        with self._breaker.admission(command, self._now()) as refusal:
            return refusal

    async def _flip(
        self, command: Command, entry: Entry, snapshot: Snapshot, created: bool, budget: Budget, received: float
    ) -> ExecutionResult:
        flip = Flip(
            self._backends[command.backend],
            command,
            snapshot,
            partial(self._written, command, entry),
            acknowledged=entry.find(events.FLAG_WRITTEN) is not None,
            # What failed before anything was sent, in this process, is as certain as at first.
            certain=created or command.id in self._unsent,
        )
        self._unsent.discard(command.id)
        refusals: list[Rejection] = []
        admitted = created

        async def may_write() -> bool:
            nonlocal admitted
            refusal = stale(command, self._now())
            if refusal is None and not admitted:
                halted = await self._disk.run(partial(self._admit, command))
                refusal = None if halted is None else Rejection(Reason.HALTED, halted)
            # What was admitted just now need not be asked again; a second attempt must.
            admitted = False
            refusals.extend([] if refusal is None else [refusal])
            return refusal is None

        try:
            outcome, state = await flip.settle(budget, may_write)
        except (BackendError, LedgerError) as error:
            if not (flip.may_have_written or isinstance(error, Ambiguous)):
                self._breaker.release(command)
                self._unsent.add(command.id)
                return ExecutionResult(Outcome.REJECTED, str(error), command=command, final=False)
            detail = f"{error}; {flip.detail}" if flip.detail else str(error)
            await self._record(entry, events.FLAG_AMBIGUOUS, {"detail": detail})
            # What has no read-back stays unknown however often it is tried.
            return ExecutionResult(Outcome.AMBIGUOUS, detail, command=command, final=not flip.readable)
        if outcome is Outcome.REJECTED:
            self._breaker.release(command)
            return _rejected(command, refusals[-1])
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
            if state is not None and status is not None and status.version == command.flag_version:
                # Somebody changed it and changed it back, which is a new version, to be judged as such.
                status = self._observe(command, state, changed=True)
                found = audit.found(status)
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

    def _observe(self, command: Command, state: FlagState, *, changed: bool = False) -> FlagStatus:
        ref = FlagRef(command.flag, command.environment)
        return self._watch.observe(ref, state, safe=command.target, at=self._now(), changed=changed)

    async def _written(self, command: Command, entry: Entry, state: FlagState | None, data: dict[str, Any]) -> None:
        # Seen here even if nobody reads it: a person who takes the write back at once makes a new version of the flag,
        # not the one that was judged.
        found = audit.found(self._observe(command, state)) if state is not None else {}
        await self._record(entry, events.FLAG_WRITTEN, {**found, **data})

    async def _record(self, entry: Entry, kind: str, data: dict[str, Any]) -> None:
        """Add a step. From here on a failing disk stops nothing: a re-delivery finds the write by reading back."""
        number = sum(event.type == kind for event in entry.events)
        await self._append(entry, audit.step(entry.command, kind, data, str(number), self._now()))

    async def _append(self, entry: Entry, event: Event) -> None:
        try:
            await self._disk.run(partial(self._ledger.append, entry, event))
        except LedgerError as error:
            name, step = entry.command.id, event.type
            log_event(log, "ledger.failed", level=logging.ERROR, command=name, step=step, error=str(error))


def _rejected(command: Command, refusal: Rejection) -> ExecutionResult:
    return ExecutionResult(Outcome.REJECTED, refusal.detail, refusal.reason, command)
