"""Executes commands: checks each, makes the flag safe at most once, and reports the outcome.

The executor trusts only its own configuration, its public keys and its ledger. A command can only make a managed flag
safe, only while the command is fresh, and only if the flag still has the version that was judged: a person's change
stays (docs/promises.md#p4-a-person-outranks-flipback). How much is done without a person is limited
(agent.executor.limits). Events are published after the flip, from the ledger: a slow audit log delays no flip, and a
crash loses no event.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

from agent.backends.contract import FlagRef, Outcome
from agent.commands.command import Command, Reason, Rejection, verify
from agent.errors import BackendError, LedgerError
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.events.wording import halt_in_force
from agent.executor.attempt import IN_FLIGHT_S, Attempts
from agent.executor.budget import Budget
from agent.executor.cooldown import Cooldown
from agent.executor.groups import Groups
from agent.executor.limits import FlipLimits
from agent.executor.opening import EntryOpener
from agent.executor.outbox import EventOutbox
from agent.executor.recovery import Later, Recovery, carry_on
from agent.executor.result import Decided, ExecutionResult, rejected, stopped
from agent.executor.settings import FlipPace, Permissions
from agent.executor.unforeseen import foreseen, words
from agent.executor.untrusted import Untrusted
from agent.ledger.automation import Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.ledger.probe import LedgerProbe
from agent.logs.setup import log_event
from agent.state.allowlist import AllowList
from agent.state.flags import FlagStatus, FlagWatch
from agent.storage.disk import Disk

log = logging.getLogger(__name__)


class Executor:
    """Executes commands within `permissions`, at the given `pace`.

    `emit` hands an event to the audit log, `now` is Unix seconds. Without `emit` events stay in the ledger, for another
    executor to publish, and refusals are only returned.
    """

    def __init__(
        self,
        permissions: Permissions,
        ledger: Ledger,
        automation: Automation,
        pace: FlipPace,
        *,
        watch: FlagWatch,
        emit: Callable[[Event], Awaitable[None]] | None,
        now: Callable[[], float],
    ) -> None:
        flags, backends = permissions.flags, permissions.backends
        self._allowed = AllowList(flags)
        self._backends = backends
        self._keys = permissions.keys
        self._ledger = ledger
        self._watch = watch
        self._now = now
        self._budget_s = pace.budget_s
        self._locks: defaultdict[FlagRef, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._finishing = asyncio.Lock()
        self._untrusted = Untrusted()
        # Neither a step of the ledger nor one call to a backend may take more than a fifth of the whole.
        self._disk = Disk(pace.budget_s / 5)
        self._automation = automation
        companions = {flag.ref: [FlagRef(name, flag.environment) for name in flag.together] for flag in flags}
        limits = FlipLimits(ledger, automation, pace.rate, companions, watch)
        cooldown = Cooldown(ledger, pace.cooldown_s)
        self._attempts = Attempts(backends, ledger, self._disk, limits, cooldown, watch, now)
        self._opener = EntryOpener(backends, ledger, self._disk, limits, cooldown, self._attempts, now)
        self._recovery = Recovery(ledger, self._allowed)
        self._probe = LedgerProbe(ledger.directory)
        self._groups = Groups(ledger, self._allowed)
        self._outbox = EventOutbox(ledger, automation, self._disk, emit)

    async def execute(self, raw: bytes) -> ExecutionResult:
        """Check and execute one command as it came off the wire; the same bytes may be given again at any time.

        Returns after its events have been published, or could not be.
        """
        decided = await self.decide(raw)
        if decided.publish is not None:
            await decided.publish()
        return decided.result

    async def decide(self, raw: bytes) -> Decided:
        """As `execute`, but return as soon as the flag has its state, before anything is published."""
        checked = verify(raw, self._keys)
        if isinstance(checked, Command):
            return await self.execute_verified(checked, raw)
        return self.refuse(raw) or Decided(ExecutionResult(Outcome.REJECTED, checked.detail, checked.reason), None)

    def trusts(self, raw: bytes) -> bool:
        """Has an accepted key signed these bytes?"""
        return isinstance(verify(raw, self._keys), Command)

    def refuse(self, raw: bytes) -> Decided | None:
        """Refuse bytes that no accepted key has signed; None if they are only to be counted."""
        suppressed = self._untrusted.admit()
        if suppressed is None:
            return None
        refusal = verify(raw, self._keys)
        if isinstance(refusal, Command):
            return None
        result = ExecutionResult(Outcome.REJECTED, refusal.detail, refusal.reason)
        return Decided(result, partial(self._outbox.publish_untrusted, raw, refusal, self._now(), suppressed))

    async def execute_verified(self, command: Command, raw: bytes) -> Decided:
        """Execute a command whose signature was checked before; a person's one-time key may be gone by now."""
        refusal, entry = self._allowed.refusal(command), None
        if refusal is not None:
            result = rejected(command, refusal)
        else:
            try:
                async with self._locks[FlagRef(command.flag, command.environment)]:
                    result, entry = await self._execute_allowed(command, raw)
            except Exception as error:
                # The exception does not say how far the flip came. The command is retried until its last write would
                # have landed.
                final = self._now() >= command.expires_at + IN_FLIGHT_S
                detail = words("the executor", error)
                result = ExecutionResult(Outcome.AMBIGUOUS, detail, None, command, final=final, unforeseen=True)
        return Decided(result, partial(self._publish, result, command, raw, entry))

    async def recover(self, later: Later | None = None) -> list[tuple[Command, bytes]]:
        """Finish what an earlier process left open, and publish what it did not come to publish.

        An entry that certainly wrote nothing is settled at once, without asking a backend. Then the backends are asked
        side by side, each about one entry at a time, so that a new command waits for one of them at most. Returns the
        commands whose outcome is still unknown; publishing is handed to `later` if it is given. Raises LedgerError if
        the ledger cannot be read.
        """
        entries = await self._disk.run(lambda: list(self._ledger.entries()))
        self._groups.recover(entries, self._now())
        left = await self._disk.run(partial(self._recovery.settle, entries, self._now()))
        found = await asyncio.gather(*(carry_on(of_one, self.execute_verified, later) for of_one in left))
        if later is None:
            await self.publish_pending()
        return [command for commands in found for command in commands]

    async def publish_pending(self) -> None:
        """Publish what could not be published before, and what another process, such as a restore, has recorded.

        Cheap if there is nothing: to be called every few seconds.
        """
        await self._outbox.publish_pending()
        await self._finish_groups()

    async def halted(self) -> str | None:
        """Why nothing is done without a person, if so. Raises LedgerError."""
        halt = await self._disk.run(self._automation.halted)
        return halt_in_force(halt) if halt is not None else None

    async def probe(self) -> None:
        """Write to the ledger's disk all that an entry takes. Raises LedgerError if that fails."""
        await self._disk.run(self._probe.write)

    async def read_flag(self, flag: str, environment: str) -> FlagStatus:
        """Read the flag's state, between flips and never during one.

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
                # Another executor may have flipped the flag meanwhile; a state read before that is no new version.
                if not self._watch.overtaken(ref, before, state):
                    break
            return self._watch.observe(ref, state, safe=managed.safe, at=self._now())

    def close(self) -> None:
        self._disk.close()

    async def _publish(self, result: ExecutionResult, command: Command, raw: bytes, entry: Entry | None) -> None:
        if entry is not None:
            await self._outbox.publish_entry(entry)
        if result.reason is not None and result.final:
            await self._outbox.publish_refusal(command, raw, Rejection(result.reason, result.detail), self._now())
        elif result.reason is None and (result.outcome is Outcome.REJECTED or result.unforeseen):
            await self._outbox.publish_inability(command, result.detail, self._now())
        if result.reason is Reason.HALTED:
            await self._outbox.publish_automation()
        # An expired command is reported as expired, and a duplicate already has an outcome: neither counts as refused.
        refused = result.reason not in (None, Reason.DUPLICATE, Reason.EXPIRED)
        self._groups.note(command, refused=refused)
        await self._finish_groups()

    async def _finish_groups(self) -> None:
        if not self._groups.open:
            return
        try:
            # Several commands may be under way, and an incident is finished once.
            async with self._finishing:
                finished = await self._disk.run(lambda: self._groups.finished(self._now()))
            for entry in finished:
                await self._outbox.publish_entry(entry)
        except LedgerError as error:
            log_event(log, "ledger.failed", level=logging.ERROR, step=events.INCIDENT_DONE, error=str(error))

    async def _execute_allowed(self, command: Command, raw: bytes) -> tuple[ExecutionResult, Entry | None]:
        """Execute with the flag's lock held. Return the result, and the entry whose events are to be published."""
        budget = Budget.of(self._budget_s)
        received = self._now()
        try:
            opened = await self._opener.open(command, raw, budget, received)
        except (BackendError, LedgerError) as error:
            return stopped(command, error), None
        if isinstance(opened, ExecutionResult):
            return opened, None
        entry, created = opened
        if entry.settled:
            return self._attempts.settled(command, entry, created), entry
        return await self._attempts.flip(command, entry, created, budget, received), entry
