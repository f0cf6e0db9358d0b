"""An explanation of `agent.views.explain` in lines for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from agent.events.cloudevents import Event
from agent.events.wording import sentence
from agent.views.evidence_lines import evidence_lines
from agent.views.explain import Explanation
from agent.views.flag_line import flag_line
from agent.views.in_order import is_verdict, made_at
from detectors.missing.unknown_reason import clock


def explanation_lines(found: Explanation, at: float, undo: Callable[[str], str], *, alone: bool = False) -> list[str]:
    """Return the flag's state at `at` (Unix seconds), the evidence, what happened and what came after.

    `undo` returns the command that restores the flag as it was before an incident. `alone`: see `flag_line`.
    """
    lines = [] if found.now is None else [f"{found.subject} {flag_line(found.now, at, alone=alone)}"]
    now, incidents = found.now, found.incidents
    if now is not None and now.incident is not None:
        lines.append(f"  by incident {now.incident}")
        if now.restorable and now.incident in incidents:
            lines.append(f"  undo: {undo(now.incident)}")
    if not found.events:
        return [*lines, f"{found.subject}: the audit log has nothing of it: no trigger of it has changed its verdict"]
    begin = made_at(found.events[0])
    head = f"{found.subject}, from {_moment(begin)}"
    lines.append(head if found.incident is None else f"{head}, incident {found.incident}")
    lines += [f"  another incident: {name}" for name in incidents if name != found.incident]
    if found.evidence is not None:
        lines += ["evidence", *(f"  {line}" for line in evidence_lines(found.evidence))]
    lines += ["what happened", *timeline(found.events, found.subject, begin)]
    if found.since:
        lines += ["since then", *timeline(found.since, found.subject, begin)]
    if found.folded:
        lines.append(f"later changes of verdicts between ok and unknown: {found.folded}")
    if now is None:
        # Without the flag's state each flip is offered. The restore refuses a flag that was changed since.
        lines += [f"put it back with: {undo(name)}" for name, wrote in incidents.items() if wrote]
    return lines


def timeline(events: Sequence[Event], subject: str, begin: float) -> Iterator[str]:
    """Yield a line for each event, with its seconds since `begin`, and its flag if that is not `subject`."""
    for event in events:
        whom = "" if event.subject == subject else f"{event.subject}: "
        # A verdict is made when its second is complete, some seconds later.
        until = f", evidence up to {clock(int(event.time))}Z" if is_verdict(event) else ""
        yield f"  {made_at(event) - begin:+9.3f} s  {whom}{sentence(event)}{until}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
