"""Putting a flag back as it was before an incident: a person's decision, never the agent's.

The snapshot of the flip is put back only where the flag is still as the flip left it. Who did it and why goes into the
ledger; a running executor tells the audit log. Of flags that were made safe together each is put back by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from agent import audit
from agent.backends.contract import FlagBackend, FlagState, Outcome
from agent.errors import ConfigError, RestoreRefused, Timeout, Transient
from agent.events import FLAG_RESTORED, FLAG_WRITTEN
from agent.ledger import Entry, Ledger

BUDGET_S = 5.0


def flipped(ledger: Ledger, incident: str) -> list[Entry]:
    """The entries of the incident's flips, one a flag, that of the flag whose trigger fired first.

    Raises RestoreRefused where flipback wrote no flag.
    """
    entries = [entry for entry in ledger.entries() if entry.command.incident == incident]
    if not entries:
        raise RestoreRefused(f"the ledger knows no incident {incident}; `flipback status` lists them")
    written = [entry for entry in entries if _written(entry) is not None]
    if not written:
        last = entries[0].events[-1].type if entries[0].events else "nothing"
        raise RestoreRefused(f"flipback did not write the flag in this incident; the last step was {last}")
    return sorted(written, key=lambda entry: (entry.command.cause is not None, entry.command.flag))


async def restore(
    ledger: Ledger,
    backends: Mapping[str, FlagBackend],
    entry: Entry,
    *,
    reason: str,
    by: str,
    now: Callable[[], float],
) -> tuple[Outcome, FlagState]:
    """Put the snapshot of a flip back: `applied`, or `already` where the flag is as it was.

    Raises RestoreRefused where somebody changed the flag since the flip, and BackendError where the backend fails.
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
        result = await backend.restore(snapshot, expect=expect, op_id=op_id, deadline=deadline - BUDGET_S / 2)
        outcome, detail = result.outcome, result.detail
    except (Timeout, Transient) as error:
        outcome, detail = Outcome.AMBIGUOUS, str(error)
    state = await backend.read(snapshot.ref, deadline=deadline)
    if state.version != snapshot.state.version:
        if outcome is Outcome.CONFLICT:
            raise RestoreRefused(
                f"the flag was changed since the flip, and gives {state.variant!r} now; it was left alone"
            )
        raise Transient(f"the flag was not restored: {detail or 'it reads as before'}; try again")
    by_us = outcome in (Outcome.APPLIED, Outcome.DUPLICATE, Outcome.AMBIGUOUS)
    outcome = Outcome.APPLIED if by_us else Outcome.ALREADY
    # Found restored and not on record: a crash came between the write and the ledger, or somebody was faster.
    if by_us or number == 0:
        data = {"variant": state.variant, "version": state.version, "outcome": outcome, "reason": reason, "by": by}
        ledger.append(entry, audit.step(command, FLAG_RESTORED, data, str(number), now()))
    return outcome, state


def _written(entry: Entry) -> str | None:
    """The version that the flip left behind."""
    event = entry.find(FLAG_WRITTEN)
    version = event.data.get("version") if event is not None else None
    return version if isinstance(version, str) else None
