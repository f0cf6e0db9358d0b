"""Restores a flag to its state before an incident: a person's decision, never the agent's.

The snapshot of the flip is written back only if the flag is still as the flip left it. The ledger records who restored
it and why; a running executor publishes that to the audit log. Flags that were made safe together are restored one by
one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from agent.backends.contract import FlagBackend, FlagState, Outcome
from agent.config.model import Config
from agent.errors import ConfigError, FlipbackError, RestoreRefused, Timeout, Transient, Unforeseen
from agent.events.cloudevents import COMMAND_RECEIVED, FLAG_RESTORED, FLAG_WRITTEN
from agent.executor import audit
from agent.executor.build import LEDGER, make_backends, open_ledger
from agent.executor.unforeseen import foreseen
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger

BUDGET_S = 5.0

SHOWN = 5
"""How many incidents an error lists if the requested one is not in the ledger."""


def used_ledger(config: Config) -> Ledger:
    """Open the ledger of an executor. Raises RestoreRefused if no executor has used the state directory."""
    # Opening a ledger that does not exist would create one, where no executor runs.
    if not os.path.lexists(config.state_dir / LEDGER):
        raise RestoreRefused(
            f"there is no ledger in state_dir {config.state_dir.absolute()}, or none that you may see; call this where "
            "the executor runs, as its user, with its configuration"
        )
    return open_ledger(config)


def flipped(ledger: Ledger, incident: str) -> list[Entry]:
    """Return the entries of the incident's flips, one per flag; the flag whose trigger fired comes first.

    Raises RestoreRefused if the ledger does not have the incident, or flipback wrote no flag in it.
    """
    known = list(ledger.entries())
    entries = [entry for entry in known if entry.command.incident == incident]
    if not entries:
        raise RestoreRefused(
            f"the ledger {ledger.directory} has no incident {incident}; if `flipback status` shows it, an executor "
            "with another state_dir executed its command: restore it there. "
            f"{_newest(known)}"
        )
    written = [entry for entry in entries if _written(entry) is not None]
    if not written:
        last = entries[0].events[-1].type if entries[0].events else "nothing"
        raise RestoreRefused(f"flipback did not write the flag in this incident; the last step was {last}")
    return sorted(written, key=lambda entry: (entry.command.cause is not None, entry.command.flag))


async def restore_each(
    config: Config, ledger: Ledger, entries: Sequence[Entry], *, reason: str, by: str
) -> list[tuple[Entry, tuple[Outcome, FlagState] | FlipbackError]]:
    """Restore the flag of each entry; return each with its result, or with the error, which stops no other flag."""
    backends = make_backends(config, {entry.command.backend for entry in entries})
    found: list[tuple[Entry, tuple[Outcome, FlagState] | FlipbackError]] = []
    try:
        for entry in entries:
            try:
                found.append((entry, await restore(ledger, backends, entry, reason=reason, by=by, now=time.time)))
            except FlipbackError as error:
                found.append((entry, error))
    finally:
        await asyncio.gather(*(backend.close() for backend in backends.values()))
    return found


async def restore(
    ledger: Ledger,
    backends: Mapping[str, FlagBackend],
    entry: Entry,
    *,
    reason: str,
    by: str,
    now: Callable[[], float],
) -> tuple[Outcome, FlagState]:
    """Write the snapshot of a flip back. The outcome is `applied`, or `already` if the flag is as it was.

    Raises RestoreRefused if somebody changed the flag since the flip, and BackendError if the backend fails.
    """
    command, snapshot, expect = entry.command, entry.opened.snapshot, _written(entry)
    backend = backends.get(command.backend)
    if backend is None or expect is None:
        raise ConfigError(f"the flag was kept in backend {command.backend!r}, which the configuration does not have")
    number = sum(event.type == FLAG_RESTORED for event in entry.events)
    op_id = f"{command.id}.restore.{number}"
    deadline = time.monotonic() + BUDGET_S
    detail = ""
    try:
        with foreseen(command.backend):
            result = await backend.restore(snapshot, expect=expect, op_id=op_id, deadline=deadline - BUDGET_S / 2)
        outcome, detail = result.outcome, result.detail
    except (Timeout, Transient, Unforeseen) as error:
        outcome, detail = Outcome.AMBIGUOUS, str(error)
    with foreseen(command.backend):
        state = await backend.read(snapshot.ref, deadline=deadline)
    if state.version != snapshot.state.version:
        if outcome is Outcome.CONFLICT:
            raise RestoreRefused(
                f"the flag was changed since the flip, and gives {state.variant!r} now; it was left alone"
            )
        raise Transient(f"the flag was not restored: {detail or 'a read shows no change'}; try again")
    by_us = outcome in (Outcome.APPLIED, Outcome.DUPLICATE, Outcome.AMBIGUOUS)
    outcome = Outcome.APPLIED if by_us else Outcome.ALREADY
    # `number == 0`: the flag is restored but the ledger has no record. A process crashed after its write, or somebody
    # restored the flag outside flipback.
    if by_us or number == 0:
        data = {"variant": state.variant, "version": state.version, "outcome": outcome, "reason": reason, "by": by}
        ledger.append(entry, audit.step(command, FLAG_RESTORED, data, str(number), now()))
    return outcome, state


def orders(entry: Entry) -> list[tuple[str, str]]:
    """Return (by, reason) of a person's command, one for each time it was ordered before it was done; oldest first."""
    commands = [event.data["command"] for event in entry.events if event.type == COMMAND_RECEIVED]
    return [(command["evidence"].get("by", ""), command["evidence"].get("reason", "")) for command in commands]


def _newest(entries: Iterable[Entry]) -> str:
    """List the newest incidents that can be restored, one line each."""
    written = sorted(filter(_written, entries), key=lambda entry: -entry.command.issued_at)
    if not written:
        return "It has no incident that could be restored"
    lines = ["The newest incidents that it has:"]
    # Flags that were made safe together share one incident: list it once.
    for name in list(dict.fromkeys(entry.command.incident for entry in written))[:SHOWN]:
        made = next(entry.command for entry in written if entry.command.incident == name)
        at = datetime.fromtimestamp(made.issued_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(f"  {at}  {made.environment}/{made.flag}/{made.trigger}  {name}")
    return "\n".join(lines)


def _written(entry: Entry) -> str | None:
    """Return the backend's version after the flip; None if flipback did not write the flag."""
    event = entry.find(FLAG_WRITTEN)
    version = event.data.get("version") if event is not None else None
    return version if isinstance(version, str) else None
