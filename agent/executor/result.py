"""The outcome of a command, for the caller of the executor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from agent.backends.contract import Outcome
from agent.commands.command import Command, Reason, Rejection
from agent.errors import Unforeseen
from agent.state.flags import FlagStatus


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """The outcome of a command. `status` is the flag as it was last read, if it was.

    `final` is False if nothing was decided: the same command may be executed again until it expires. `retry_at` is the
    first moment (Unix seconds) at which the same command, issued again, can succeed; None if that is unknown.
    `unforeseen`: it was stopped by an exception that no code foresaw; `detail` names it.
    """

    outcome: Outcome
    detail: str
    reason: Reason | None = None
    command: Command | None = None
    status: FlagStatus | None = None
    final: bool = True
    retry_at: float | None = None
    unforeseen: bool = False


class Decided(NamedTuple):
    """A result, and the call that publishes it: await it once, at any time. None: the result is only counted."""

    result: ExecutionResult
    publish: Callable[[], Awaitable[None]] | None


def stopped(command: Command, error: Exception) -> ExecutionResult:
    """Return the result of an error that came before anything was written."""
    unforeseen = isinstance(error, Unforeseen)
    return ExecutionResult(Outcome.REJECTED, str(error), command=command, final=False, unforeseen=unforeseen)


def rejected(
    command: Command, refusal: Rejection, *, final: bool = True, retry_at: float | None = None
) -> ExecutionResult:
    return ExecutionResult(Outcome.REJECTED, refusal.detail, refusal.reason, command, final=final, retry_at=retry_at)
