"""What follows a command: when it is sent again, what a person is told of it, and when nobody waits for it any more.

Pure: an incident, what the executors published of its command, the flag and the time are given.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.commands.command import Reason
from agent.state.flags import FlagStatus, generation
from agent.state.incidents import CommandResult, Incident

UNSEEN_AFTER = 30.0
"""Seconds after a command within which the flag must be seen safe; then the inability is announced (docs/promises.md,
P3)."""

RESEND_MARGIN = 5.0
"""Seconds after a command's end before it is sent anew: an executor may still be at work on the old one, whose budget
is 5 s."""

RETRY_MARGIN = 1.0
"""Seconds added to an executor's retry time, for what the command took to get there."""

_PASSING = frozenset({Reason.EXPIRED, Reason.DUPLICATE})
"""Refusals that say nothing of the next sending, nor of the flag."""


class FollowUpProblem(NamedTuple):
    """Why a command has not made its flag safe. Equal kinds are one problem, which is announced once."""

    kind: str
    detail: str


def resend_at(incident: Incident, result: CommandResult | None) -> float:
    """When the command is sent anew, if the flag is not safe then; `result` is the newest of it.

    An executor's retry time counts as a duration from its own answer, so that clocks need not agree.
    """
    retry_in = _retry_in(result) if _answers(incident, result) else None
    if retry_in is not None:
        return incident.commanded_at + max(retry_in + RETRY_MARGIN, RESEND_MARGIN)
    # A command that expired and left the flag as it was has reached nobody, or was refused for good.
    return incident.expires_at + RESEND_MARGIN


def problem(incident: Incident, status: FlagStatus, result: CommandResult | None, now: float) -> FollowUpProblem | None:
    """Why the flag is not safe yet, to be told a person; None while it may still become so by itself."""
    if result is not None and _answers(incident, result) and result.outcome == "rejected":
        if result.retry_at is not None:
            return None
        if result.reason is not None and result.reason not in _PASSING:
            when = "`flipback resume`" if result.reason == Reason.HALTED else "it has expired"
            return FollowUpProblem(
                f"refused {result.reason}",
                f"the command was refused, {result.reason}: {result.detail}; turn the flag off by hand meanwhile: the "
                f"command is sent again after {when}",
            )
    if now - incident.commanded_at <= UNSEEN_AFTER:
        return None
    gives = "gives different variants" if status.variant is None else repr(status.variant)
    late = f"flag still {gives} {UNSEEN_AFTER:.0f} s after the command"
    if result is None:
        return FollowUpProblem("unseen", f"{late}, and no executor has answered: is one running?")
    if not _answers(incident, result):
        # An executor that has done a command before need not say so again.
        answer = f"an earlier sending was answered with {result.outcome}: {result.detail}"
        return FollowUpProblem(f"unseen {result.outcome}", f"{late}, and no executor has answered this one; {answer}")
    return FollowUpProblem(
        f"unseen {result.outcome}", f"{late}; the executor's answer was {result.outcome}: {result.detail}"
    )


def turned_back_at(incident: Incident, status: FlagStatus | None) -> float | None:
    """Since when the flag is safe by the incident's flip; None where it is not, or another change followed."""
    if status is None or not status.safe or generation(status.version) != generation(incident.flag_version) + 1:
        return None
    begun = incident.commanded_at if incident.begun_at is None else incident.begun_at
    # Not before its command, as an executor's clock that is behind has it: then the next flag would not wait at all.
    return begun if status.changed_at is None else max(status.changed_at, begun)


def may_have_flipped(incident: Incident, result: CommandResult | None) -> bool:
    """May a command have changed its flag, by its newest result? So it may have where none has come of its newest
    sending."""
    return result is None or not _answers(incident, result) or result.outcome not in ("already", "conflict", "rejected")


def failed(incident: Incident, result: CommandResult | None, now: float, longest: float) -> str | None:
    """Why nobody waits any longer for the flag of a commanded incident to become safe; None while it is waited for.

    `longest` bounds the wait from the first sending, in seconds, also where an executor names a later retry.
    While everything is halted all flags wait: the next one would be refused too.
    """
    begun = incident.commanded_at if incident.begun_at is None else incident.begun_at
    if result is not None and result.outcome == "rejected":
        if result.reason == Reason.HALTED and (
            _answers(incident, result) or now - incident.commanded_at <= UNSEEN_AFTER
        ):
            return None
        retry_in = _retry_in(result)
        if retry_in is not None:
            end = min(incident.commanded_at + retry_in + UNSEEN_AFTER, begun + longest)
            return f"its command was refused, {result.reason}: {result.detail}" if now > end else None
        if result.reason is not None and result.reason not in _PASSING:
            return f"its command was refused, {result.reason}: {result.detail}"
    if now - begun <= UNSEEN_AFTER:
        return None
    answer = "no executor has answered" if result is None else f"the answer was {result.outcome}: {result.detail}"
    return f"it was not safe {UNSEEN_AFTER:.0f} s after its command; {answer}"


def _retry_in(result: CommandResult | None) -> float | None:
    if result is None or result.outcome != "rejected" or result.retry_at is None:
        return None
    return max(0.0, result.retry_at - result.at)


def _answers(incident: Incident, result: CommandResult | None) -> bool:
    """Is the result that of the newest sending?"""
    return result is not None and (incident.sent is None or result.sent == incident.sent)
