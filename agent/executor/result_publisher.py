"""Publishes the result of each command: the monitor learns from it of a refusal, and when to try again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.backends.contract import Outcome
from agent.executor import audit
from agent.executor.result import ExecutionResult
from agent.state.incidents import MAX_DETAIL, CommandResult

_COMMANDS = 1000
"""Commands whose last result is kept."""


class ResultPublisher:
    """Hands each new result to `send`; a command that is retried has the same result each time."""

    def __init__(self, send: Callable[[CommandResult], Awaitable[None]] | None) -> None:
        self._send = send
        self._last: dict[str, tuple[str, Outcome, str | None, str]] = {}

    async def publish(self, raw: bytes, result: ExecutionResult, at: float) -> None:
        """Publish the result of the command that came as `raw`; `at` is Unix seconds."""
        command, reason, sent = result.command, result.reason, audit.digest(raw)
        if self._send is None or (command is not None and not self._news(command.id, sent, result)):
            return
        await self._send(
            CommandResult(
                sent=sent,
                outcome=result.outcome.value,
                at=at,
                command="" if command is None else command.id,
                incident="" if command is None else command.incident,
                environment="" if command is None else command.environment,
                flag="" if command is None else command.flag,
                reason=None if reason is None else reason.value,
                detail=result.detail[:MAX_DETAIL],
                retry_at=result.retry_at,
            )
        )

    def _news(self, name: str, sent: str, result: ExecutionResult) -> bool:
        last = self._last.pop(name, None)
        # `duplicate` adds nothing if the command's own result was published.
        if last is not None and result.outcome is Outcome.DUPLICATE:
            self._last[name] = last
            return False
        self._last[name] = now = (sent, result.outcome, result.reason, result.detail)
        while len(self._last) > _COMMANDS:
            del self._last[next(iter(self._last))]
        return now != last
