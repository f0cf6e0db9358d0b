"""Commands whose outcome is unknown: each is retried, beside the commands that follow, until it is known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.backends.contract import Outcome
from agent.commands.command import Command
from agent.executor.result import ExecutionResult

AGAIN_AFTER = 0.5
"""Seconds until another attempt: short, so that a backend or a disk that works again is used at once."""

LOOK_AT_MOST = 10.0
"""Seconds between read-backs of an ambiguous write, at most; they double from `AGAIN_AFTER`. A read-back that keeps
failing must not take time from the flips that follow."""

_logger = logging.getLogger(__name__)


class Retries:
    """Repeats `attempt` for each command that is added, until its result is final. An exception of it is logged."""

    def __init__(self, attempt: Callable[[Command, bytes], Awaitable[ExecutionResult]]) -> None:
        self._attempt = attempt
        self._newest: dict[str, tuple[Command, bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, command: Command, raw: bytes) -> None:
        """Retry a command. A command that was issued again replaces the earlier one of its id."""
        known = self._newest.get(command.id)
        if known is not None and known[0].issued_at > command.issued_at:
            return
        self._newest[command.id] = command, raw
        if known is None:
            task = asyncio.create_task(self._go_on(command.id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _go_on(self, name: str) -> None:
        pause = AGAIN_AFTER
        try:
            while True:
                await asyncio.sleep(pause)
                tried = self._newest[name]
                result = await self._attempt(*tried)
                if self._newest[name] is not tried:
                    # The command was issued again meanwhile.
                    pause = AGAIN_AFTER
                elif result.final:
                    return
                else:
                    ambiguous = result.outcome is Outcome.AMBIGUOUS or result.reason is not None
                    pause = min(2 * pause, LOOK_AT_MOST) if ambiguous else AGAIN_AFTER
        except Exception as error:
            # As in streams.executor.orders, the command counts as done; without this line the error would be lost.
            fields = {"command": name, "error": repr(error)[:500]}
            _logger.exception("command.failed", extra={"fields": fields})
        finally:
            del self._newest[name]
