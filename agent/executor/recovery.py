"""Unfinished entries that a start finds in the ledger: those that certainly wrote nothing, and those to be retried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from agent.commands.command import Command
from agent.commands.expiry import stale
from agent.events import cloudevents as events
from agent.executor import audit
from agent.executor.result import Decided
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.allowlist import AllowList

Later = Callable[[Callable[[], Awaitable[None]]], None]
"""Runs work for which nobody waits."""


class Recovery:
    """Settles entries without asking a backend. Calls block on the disk, and raise LedgerError if it fails."""

    def __init__(self, ledger: Ledger, allowed: AllowList) -> None:
        self._ledger = ledger
        self._allowed = allowed

    def settle(self, entries: Iterable[Entry], now: float) -> list[list[Entry]]:
        """Settle the entries that can be; return the others, one list per backend, in the order to retry them.

        The command that expires last comes first: an old one is not urgent.
        """
        left: dict[str, list[Entry]] = {}
        for entry in entries:
            if not entry.settled and not self._settle(entry, now):
                left.setdefault(entry.command.backend, []).append(entry)
        for of_one in left.values():
            of_one.sort(key=lambda entry: -entry.command.expires_at)
        return list(left.values())

    def _settle(self, entry: Entry, now: float) -> bool:
        command = entry.command
        unknown = self._allowed.refusal(command)
        refusal = unknown or stale(command, now)
        if entry.unwritten and refusal is not None:
            self._end(entry, events.FLAG_NOT_WRITTEN, {"detail": refusal.detail}, now)
            return True
        if unknown is not None:
            todo = "look at the flag: this configuration cannot, and nobody knows whether it was written"
            self._end(entry, events.FLAG_UNRESOLVED, {"detail": unknown.detail, "todo": todo}, now)
            return True
        return False

    def _end(self, entry: Entry, kind: str, data: dict[str, str], now: float) -> None:
        self._ledger.append(entry, audit.entry_step(entry, kind, data, now))


async def carry_on(
    entries: Iterable[Entry], execute: Callable[[Command, bytes], Awaitable[Decided]], later: Later | None = None
) -> list[tuple[Command, bytes]]:
    """Execute entries again, one after the other; return the commands whose outcome is still unknown.

    `later` gets what publishes a result; without it, publishing ends before the next entry begins.
    """
    undecided = []
    for entry in entries:
        command, raw = entry.command, entry.opened.raw
        decided = await execute(command, raw)
        if decided.publish is not None and later is not None:
            later(decided.publish)
        elif decided.publish is not None:
            await decided.publish()
        if not decided.result.final:
            undecided.append((command, raw))
    return undecided
