"""Commands that were refused because the automation was halted: after its resumption they can be sent again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent.commands.command import Reason
from agent.executor.result import ExecutionResult

_MOST = 1000
"""Commands that are kept, the newest: a command has one incident, and an incident one flag or group."""

RESUMED = "the automation was resumed since; the command can be sent again"


class RefusedCommands:
    """The newest issue of each command that was refused as halted, with its result."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[bytes, ExecutionResult]] = {}

    def note(self, raw: bytes, result: ExecutionResult) -> None:
        """Note the result of a command that came as `raw`."""
        if result.command is None:
            return
        self._waiting.pop(result.command.id, None)
        if result.reason is Reason.HALTED:
            self._waiting[result.command.id] = raw, result
            if len(self._waiting) > _MOST:
                del self._waiting[next(iter(self._waiting))]

    async def publish_resumption(
        self,
        halted: Callable[[], Awaitable[str | None]],
        publish: Callable[[bytes, ExecutionResult, float], Awaitable[None]],
        now: float,
    ) -> None:
        """Publish once, if nothing is `halted` any more, that each command can succeed from `now` (Unix seconds)."""
        if not self._waiting or await halted() is not None:
            return
        waiting = [*self._waiting.values()]
        self._waiting.clear()
        for raw, result in waiting:
            await publish(raw, replace(result, detail=RESUMED, retry_at=now), now)
