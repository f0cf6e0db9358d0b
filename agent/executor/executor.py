"""Carries out commands: checks each, makes the flag safe at most once, and says what became of it.

The executor trusts nothing but its own configuration, its public keys and its ledger. A command can only make a managed
flag safe, only while it is fresh, and only if the flag is still the one that was judged: what a person changed is left
alone. How much is done without a person is limited (agent.executor.limits).
Events are told after the flip, from the ledger, so that no slow audit log delays a flip and no crash loses a line.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from agent.backends.contract import FlagBackend, FlagRef, Outcome, Snapshot
from agent.commands.command import Command, Reason, Rejection, verify
from agent.commands.keys import PublicKey
from agent.errors import BackendError, LedgerError
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor import audit
from agent.executor.attempt import IN_FLIGHT_S, Attempts
from agent.executor.cooldown import Cooldown
from agent.executor.flip import Budget
from agent.executor.groups import Groups
from agent.executor.limits import FlipLimits, FlipRate
from agent.executor.outbox import EventOutbox
from agent.executor.recovery import Later, Recovery, carry_on
from agent.executor.result import Decided, ExecutionResult, rejected, stopped
from agent.executor.unforeseen import foreseen, words
from agent.executor.untrusted import Untrusted
from agent.ledger import automation
from agent.ledger.automation import Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.ledger.probe import LedgerProbe
from agent.logs.setup import log_event
from agent.state.allowlist import AllowList, ManagedFlag, stale
from agent.state.flags import FlagStatus, FlagWatch
from agent.storage.disk import Disk

log = logging.getLogger(__name__)


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
        limits: FlipRate,
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
        self._budget_s = budget_s
        self._locks: defaultdict[FlagRef, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._finishing = asyncio.Lock()
        self._untrusted = Untrusted()
        # Neither a step of the ledger nor one call to a backend may take more than a fifth of the whole.
        self._disk = Disk(budget_s / 5)
        self._automation = automation
        companions = {flag.ref: [FlagRef(name, flag.environment) for name in flag.together] for flag in flags}
        breaker = FlipLimits(ledger, automation, limits, companions, watch)
        self._breaker = breaker
        self._cooldown = Cooldown(ledger, cooldown_s)
        self._attempts = Attempts(backends, ledger, self._disk, breaker, self._cooldown, watch, now)
        self._recovery = Recovery(ledger, self._allowed)
        self._probe = LedgerProbe(ledger.directory)
        self._groups = Groups(ledger, self._allowed)
        self._teller = EventOutbox(ledger, automation, self._disk, emit)

    async def execute(self, raw: bytes) -> ExecutionResult:
        """Check and carry out one command as it came off the wire; the same bytes may be given again at any time.

        Returns when its events have been told, or could not be.
        """
        decided = await self.decide(raw)
        if decided.tell is not None:
            await decided.tell()
        return decided.result

    async def decide(self, raw: bytes) -> Decided:
        """As `execute`, but returns as soon as the flag has its state: nothing has been told."""
        checked = verify(raw, self._publics)
        if isinstance(checked, Command):
            return await self.again(checked, raw)
        return self.refuse(raw) or Decided(ExecutionResult(Outcome.REJECTED, checked.detail, checked.reason), None)

    def trusts(self, raw: bytes) -> bool:
        """Has an accepted key signed these bytes?"""
        return isinstance(verify(raw, self._publics), Command)

    def refuse(self, raw: bytes) -> Decided | None:
        """Refuse bytes that no accepted key has signed; None where they are to be counted only."""
        suppressed = self._untrusted.admit()
        if suppressed is None:
            return None
        refusal = verify(raw, self._publics)
        if isinstance(refusal, Command):
            return None
        result = ExecutionResult(Outcome.REJECTED, refusal.detail, refusal.reason)
        return Decided(result, partial(self._teller.untrusted, raw, refusal, self._now(), suppressed))

    async def again(self, command: Command, raw: bytes) -> Decided:
        """Carry out a command whose signature was checked before; a person's key for the occasion may be gone."""
        refusal, entry = self._allowed.refusal(command), None
        if refusal is not None:
            result = rejected(command, refusal)
        else:
            try:
                async with self._locks[FlagRef(command.flag, command.environment)]:
                    result, entry = await self._carry_out(command, raw)
            except Exception as error:
                # Nobody can tell how far it came. It is looked at again until its last write would have landed.
                final = self._now() >= command.expires_at + IN_FLIGHT_S
                detail = words("the executor", error)
                result = ExecutionResult(Outcome.AMBIGUOUS, detail, None, command, final=final, unforeseen=True)
        return Decided(result, partial(self._tell, result, command, raw, entry))

    async def recover(self, later: Later | None = None) -> list[tuple[Command, bytes]]:
        """Finish what an earlier process left open, and tell what it did not come to tell.

        What certainly came to nothing is settled at once, without a word to a backend; then the backends are asked side
        by side, each about one entry at a time, so that a new command waits for one of them at most. Returns the
        commands of which it is still not known what became; what is to be published is given to `later`, where there is
        one. Raises LedgerError where the ledger cannot be read.
        """
        entries = await self._disk.run(lambda: list(self._ledger.entries()))
        self._groups.recover(entries, self._now())
        left = await self._disk.run(partial(self._recovery.settle, entries, self._now()))
        found = await asyncio.gather(*(carry_on(of_one, self.again, later) for of_one in left))
        if later is None:
            await self.tell_pending()
        return [command for commands in found for command in commands]

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

    async def probe(self) -> None:
        """Write to the ledger's disk all that an entry takes. Raises LedgerError where that fails."""
        await self._disk.run(self._probe.write)

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
                with foreseen(managed.backend):
                    state = await self._backends[managed.backend].read(ref, deadline=budget.deadline)
                # Another executor may have flipped the flag meanwhile; what was read before that is no new version.
                if not self._watch.overtaken(ref, before, state):
                    break
            return self._watch.observe(ref, state, safe=managed.safe, at=self._now())

    def close(self) -> None:
        self._disk.close()

    async def _tell(self, result: ExecutionResult, command: Command, raw: bytes, entry: Entry | None) -> None:
        if entry is not None:
            await self._teller.announce(entry)
        if result.reason is not None and result.final:
            await self._teller.refused(command, raw, Rejection(result.reason, result.detail), self._now())
        elif result.reason is None and (result.outcome is Outcome.REJECTED or result.unforeseen):
            await self._teller.unable(command, result.detail, self._now())
        if result.reason is Reason.HALTED:
            await self._teller.tell_automation()
        # What expired is told by that name, and what was done before has its outcome.
        refused = result.reason not in (None, Reason.DUPLICATE, Reason.EXPIRED)
        self._groups.note(command, refused=refused)
        await self._finish_groups()

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
            if known is None or self._anew(known, command):
                examined = await self._examine(command, budget)
                if isinstance(examined, ExecutionResult):
                    return examined, None
                number = 0 if known is None else known.round + 1
                if known is not None and examined.steps[-1][0] == events.FLAG_CONFLICT:
                    # Nothing that was not known before.
                    return self._attempts.settled(command, known, False), known
                name = audit.in_round(number, "0")
                first = [audit.step(command, kind, data, name, received) for kind, data in examined.steps]
                opened = await self._disk.run(partial(self._open, command, raw, examined.snapshot, first, number))
                if isinstance(opened, str):
                    return rejected(command, Rejection(Reason.HALTED, opened)), None
                entry, created = opened
            else:
                entry, created = known, False
                await self._ordered_again(entry, command, received)
        except (BackendError, LedgerError) as error:
            return stopped(command, error), None
        if entry.settled:
            return self._attempts.settled(command, entry, created), entry
        return await self._attempts.flip(command, entry, created, budget, received), entry

    def _anew(self, known: Entry, command: Command) -> bool:
        """Has the command come to nothing, and is it, or one issued anew, still valid?"""
        return known.undone and stale(command, self._now()) is None

    async def _ordered_again(self, entry: Entry, command: Command, received: float) -> None:
        """Write down who gives an order once more that is not done yet, and why: by its id it is the first one."""
        if entry.settled or not command.by_hand or command.evidence == entry.command.evidence:
            return
        data = {"command": msgspec.to_builtins(command)}
        event = audit.step(command, events.COMMAND_RECEIVED, data, f"again {command.issued_at!r}", received)
        if all(known.id != event.id for known in entry.events):
            await self._attempts.append(entry, event)

    async def _examine(self, command: Command, budget: Budget) -> ExecutionResult | _Examined:
        """Look at the clock and at the flag: a refusal, or the first steps, which settle it where no write follows."""
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
        """Enter a command in the ledger, if it writes nothing or may write; else why it may not. Blocks on the disk."""
        if first[-1].type != events.FLAG_SNAPSHOT:
            return self._ledger.open(command, raw, snapshot, first, number)
        with self._breaker.admission(command, self._now()) as refusal:
            return refusal or self._ledger.open(command, raw, snapshot, first, number)
