"""What follows a command: when it is sent again, when a problem is announced, and when other flags stop waiting for it.

Pure: the incident, the executors' result, the flag's state and the time are arguments.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.commands.command import Reason
from agent.state.flags import FlagStatus, generation
from agent.state.incidents import CommandResult, Incident

UNSEEN_AFTER = 30.0
"""Seconds after a command within which the flag must be seen safe; after that the inability is announced
(docs/promises.md#p3-an-inability-is-announced)."""

RESEND_MARGIN = 5.0
"""Seconds after a command's expiry before it is sent again: an executor may still be working on it, for at most its
budget of 5 s."""

RETRY_MARGIN = 1.0
"""Seconds added to an executor's retry time, for the delivery of the command."""

_PASSING = frozenset({Reason.EXPIRED, Reason.DUPLICATE})
"""Refusals that concern this sending only, neither the next one nor the flag."""


class FollowUpProblem(NamedTuple):
    """Why a command has not made its flag safe. Problems of one kind are announced once."""

    kind: str
    detail: str


def resend_at(incident: Incident, result: CommandResult | None) -> float:
    """Return when the command is sent again if the flag is not safe by then; `result` is its newest result.

    An executor's retry time is used as a duration from its own answer, so that clocks need not agree.
    """
    retry_in = _retry_in(result) if _answers(incident, result) else None
    if retry_in is not None:
        return incident.commanded_at + max(retry_in + RETRY_MARGIN, RESEND_MARGIN)
    # If a command expired and the flag is unchanged, the command reached no executor or was refused for good.
    return incident.expires_at + RESEND_MARGIN


def problem(incident: Incident, status: FlagStatus, result: CommandResult | None, now: float) -> FollowUpProblem | None:
    """Return why the flag is not safe yet, as it is announced; None while the flag may still become safe by itself."""
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
        # An executor that has executed the command before need not answer again.
        answer = f"an earlier sending was answered with {result.outcome}: {result.detail}"
        return FollowUpProblem(f"unseen {result.outcome}", f"{late}, and no executor has answered this one; {answer}")
    return FollowUpProblem(
        f"unseen {result.outcome}", f"{late}; the executor's answer was {result.outcome}: {result.detail}"
    )


def turned_back_at(incident: Incident, status: FlagStatus | None) -> float | None:
    """Return since when the flag is safe by the incident's flip; None if it is not, or another change followed."""
    if status is None or not status.safe or generation(status.version) != generation(incident.flag_version) + 1:
        return None
    begun = incident.commanded_at if incident.begun_at is None else incident.begun_at
    # Never before the command: an executor's clock may be behind, and then the next flag would not wait at all.
    return begun if status.changed_at is None else max(status.changed_at, begun)


def may_have_flipped(incident: Incident, result: CommandResult | None) -> bool:
    """May a command have changed its flag, by its newest result? Yes if its newest sending has no result yet."""
    return result is None or not _answers(incident, result) or result.outcome not in ("already", "conflict", "rejected")


def failed(incident: Incident, result: CommandResult | None, now: float, longest: float) -> str | None:
    """Return why other flags no longer wait for a commanded flag to become safe; None while they wait.

    `longest` bounds the wait in seconds from the first sending, even if an executor names a later retry. During a halt
    all flags wait: the next one would be refused too.
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
    """Does the result belong to the newest sending?"""
    return result is not None and (incident.sent is None or result.sent == incident.sent)
