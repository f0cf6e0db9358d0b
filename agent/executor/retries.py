"""Commands of which it is not known what became: each is tried again, beside those that follow, until it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.backends.contract import Outcome
from agent.commands.command import Command
from agent.executor.result import ExecutionResult

AGAIN_AFTER = 0.5
"""Seconds until another attempt: a backend that is back, or a disk with room, is to be used at once."""

LOOK_AT_MOST = 10.0
"""Seconds between read-backs of a write in doubt, at most; they double from `AGAIN_AFTER`. A read-back that goes on
failing must not take the time of the flips that follow."""

_logger = logging.getLogger(__name__)


class Retries:
    """Calls `attempt` again for each command that is added, until its result is final. What it raises is logged."""

    def __init__(self, attempt: Callable[[Command, bytes], Awaitable[ExecutionResult]]) -> None:
        self._attempt = attempt
        self._newest: dict[str, tuple[Command, bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, command: Command, raw: bytes) -> None:
        """Try a command again. One that was issued anew takes the place of the earlier one of its id."""
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
                    # Issued anew meanwhile.
                    pause = AGAIN_AFTER
                elif result.final:
                    return
                else:
                    doubtful = result.outcome is Outcome.AMBIGUOUS or result.reason is not None
                    pause = min(2 * pause, LOOK_AT_MOST) if doubtful else AGAIN_AFTER
        except Exception as error:
            # As in streams.executor.orders, it counts as done; nobody else would hear of it.
            fields = {"command": name, "error": repr(error)[:500]}
            _logger.exception("command.failed", extra={"fields": fields})
        finally:
            del self._newest[name]
