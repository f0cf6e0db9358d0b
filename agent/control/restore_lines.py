"""A restore in words: the flip that it undoes, and what came of it for each flag."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from agent.backends.contract import FlagState, Outcome
from agent.control.restore import orders
from agent.events.wording import sentence
from agent.ledger.entry import Entry
from agent.views.evidence_lines import breach


def plan_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield four lines for each flip: the incident, what is put back, why the flag was flipped, and its last event."""
    for entry in entries:
        made, last = entry.command, entry.events[-1]
        moment = datetime.fromtimestamp(last.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        before = state_in_words(entry.opened.snapshot.state)
        yield f"incident {made.incident}"
        yield f"  {made.environment}/{made.flag} of {made.service}: {before} -> {made.target!r}"
        yield f"  {_why(entry)}"
        yield f"  last at {moment}: {sentence(last)}"


def question(flags: int) -> str:
    """Return the question before a restore of so many flags."""
    return "Put it back?" if flags == 1 else "Put them back?"


def restored_line(entry: Entry, outcome: Outcome, state: FlagState) -> str:
    """Return what a restore did, and the flag's state after it."""
    found = "restored" if outcome is Outcome.APPLIED else "as it was already"
    return f"{found}: {entry.command.environment}/{entry.command.flag} is {state_in_words(state)}"


def state_in_words(state: FlagState) -> str:
    """Return the variant that a flag gives, or its percentage."""
    if state.variant is not None:
        return repr(state.variant)
    return "different variants, as its rules say" if state.percent is None else f"at {state.percent:g} %"


def _why(entry: Entry) -> str:
    made = entry.command
    if made.by_hand:
        return "by hand, " + "; then ".join(f"{by}: {reason}" for by, reason in orders(entry))
    return f"{made.trigger}: {breach(made.evidence)}, {made.evidence.samples:,} samples"
