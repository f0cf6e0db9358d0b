"""What became of a command, for the caller of the executor."""

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
    """What became of a command. `status` is the flag as it was last read, where it was.

    `final` is False where nothing was decided: the same command may be executed again until it expires. `retry_at` is
    the first moment (Unix seconds) at which the same command, issued anew, can succeed; None where nobody can say.
    `unforeseen`: it was stopped by an exception that nobody foresaw, which `detail` names.
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
    """A result, and the call that publishes it, to be awaited once, at any time. None: the result is only counted."""

    result: ExecutionResult
    publish: Callable[[], Awaitable[None]] | None


def stopped(command: Command, error: Exception) -> ExecutionResult:
    """An error came before anything was written."""
    unforeseen = isinstance(error, Unforeseen)
    return ExecutionResult(Outcome.REJECTED, str(error), command=command, final=False, unforeseen=unforeseen)


def rejected(
    command: Command, refusal: Rejection, *, final: bool = True, retry_at: float | None = None
) -> ExecutionResult:
    return ExecutionResult(Outcome.REJECTED, refusal.detail, refusal.reason, command, final=final, retry_at=retry_at)
