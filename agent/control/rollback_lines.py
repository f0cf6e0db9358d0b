"""A person's rollback in words: what it will do, and what came of it for each flag."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple

from agent.backends.contract import BackendHealth, FlagRef, Outcome
from agent.commands.command import Reason
from agent.config.flags import Flag
from agent.control import rollback
from agent.errors import BackendError
from agent.events.cloudevents import Event
from agent.events.wording import MADE_SAFE
from agent.executor.result import ExecutionResult
from agent.ledger.entry import UNUSABLE
from agent.state.flags import FlagStatus

NOTHING_SENT = "nothing was sent"
"""In place of `expiry` before the commands are sent."""

_LONGEST_DETAIL = 500
"""Characters of an event's detail that are shown."""


class FlagReport(NamedTuple):
    """What came of the rollback of one flag. `line` is the result, or why the flag is not `safe`.

    `unseen` are the reasons why applications may not see that the flag is safe, `doubts` are lesser ones.
    """

    line: str
    safe: bool
    unseen: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def plan_line(flag: Flag) -> str:
    """Return what a rollback sets, to be confirmed."""
    return f"{flag.environment}/{flag.flag} in {flag.backend!r}: to {flag.safe!r} for everyone"


def question(flags: int) -> str:
    """Return the question before a rollback of so many flags."""
    return "Roll it back?" if flags == 1 else "Roll them back?"


def direct_report(flag: Flag, result: ExecutionResult | BackendError, health: BackendHealth) -> FlagReport:
    """Report on a flag of `agent.control.rollback.direct`; `health` is what the flag system says against a flip."""
    name = f"{flag.environment}/{flag.flag}"
    if isinstance(result, BackendError):
        return FlagReport(f"{name}: {result}", safe=False)
    if result.status is None or not result.status.safe:
        # What hides a flip from applications does not matter if there was no flip.
        return FlagReport(f"{name}: {result.outcome}: {_undone(result, flag.backend)}", safe=False)
    if result.outcome is Outcome.APPLIED:
        incident = "" if result.command is None else f", incident {result.command.incident}"
        line = f"rolled back: {name} is {flag.safe!r}, written and read back{incident}"
    else:
        line = f"safe already: {name} is {flag.safe!r}; nothing was written ({result.outcome}: {result.detail})"
    return FlagReport(
        line,
        safe=True,
        unseen=tuple(f"{name}: LOOK whether applications see it: {problem}" for problem in health.problems),
        doubts=tuple(f"{name}: to be looked at: {doubt}" for doubt in health.doubts),
    )


def _undone(result: ExecutionResult, backend: str) -> str:
    """Return why a flag was not made safe, and what to do."""
    why = result.detail or "not done"
    if why.startswith(UNUSABLE):
        todo = f"make room or mend the rights there and try again, or turn the flag off in {backend!r} itself"
        return f"{why}; nothing was written; {todo}"
    return f"{why}; {'then' if result.outcome is Outcome.REJECTED else 'look at the flag and'} try again"


def expiry(expires: float) -> str:
    """Return until when the commands are valid, given in Unix seconds."""
    clock = datetime.fromtimestamp(math.ceil(expires), UTC).strftime("%H:%M:%S")
    return f"the order expires at {clock}Z and is void then"


def unheard_line(why: str, until: str) -> str:
    """Return the advice if no executor will receive the commands; `until` is NOTHING_SENT or their `expiry`."""
    return f"{why}; {until}. Do not wait: use --direct, {rollback.DIRECT_WHERE}"


def kafka_report(ref: FlagRef, before: FlagStatus, last: Event | None, until: str) -> FlagReport:
    """Report on a flag of `agent.control.rollback.by_kafka`: its state before, and the last event of its command."""
    name = f"{ref.environment}/{ref.flag}"
    if last is None or last.type not in rollback.FINAL:
        what = "no executor has answered" if last is None else _last_word(last)
        return FlagReport(f"{name}: {what} within {rollback.WAIT_S:.0f} s; {until}; use --direct", safe=False)
    if last.type in MADE_SAFE:
        return FlagReport(f"{MADE_SAFE[last.type]}: {name}, incident {last.data['incident']}", safe=True)
    if last.data.get("reason") == Reason.DUPLICATE and before.safe:
        return FlagReport(f"safe already: {name}; the order was a duplicate: {last.data['detail']}", safe=True)
    why = last.data.get("detail") or "the flag was changed meanwhile and left alone; try again"
    return FlagReport(f"{name}: not done: {why}", safe=False)


def _last_word(event: Event) -> str:
    why = str(event.data.get("reason") or event.data.get("detail") or "")[:_LONGEST_DETAIL]
    return f"the last word was {event.type}" + (f": {why}," if why else "")
