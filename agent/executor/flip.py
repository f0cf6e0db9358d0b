"""One flip, from a durable snapshot to a known state: conditional write, read-back, and a retry where that helps.

An attempt writes only if certainly nothing has been written: at first, or if a read-back finds the snapshot's copy, or
its definition while no write is on record. The read-back decides, whatever the answer to the write was, or if there was
none.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from agent.backends.contract import Cas, FlagBackend, FlagState, Outcome, Snapshot, Verdict
from agent.commands.command import Command
from agent.errors import Ambiguous, Conflict, Failed, Throttled, Timeout, Transient, Unforeseen, Unsent
from agent.executor.budget import Budget
from agent.executor.unforeseen import foreseen


class Flip:
    """The write of one command.

    `written` records durably that the write has landed; it gets the state that the write left, if that is known, and
    data of the event. `acknowledged`: an earlier process had the write confirmed. `certain`: nothing can have been
    written so far. `readable` is False after `settle` if the backend has no read-back: its answer is then all that will
    be known. `unforeseen`: the last write raised an exception that no backend should raise; `detail` names it.
    """

    def __init__(
        self,
        backend: FlagBackend,
        command: Command,
        snapshot: Snapshot,
        written: Callable[[FlagState | None, dict[str, Any]], Awaitable[None]],
        *,
        acknowledged: bool,
        certain: bool,
    ) -> None:
        self._backend = backend
        self._command = command
        self._snapshot = snapshot
        self._written = written
        self._acknowledged = acknowledged
        self._write_next = certain
        self._attempts = 0
        self._under_way = False
        self._unsent: Throttled | Unsent | None = None
        self.may_have_written = not certain
        self.readable = True
        self.unforeseen = False
        self.detail = ""

    async def settle(
        self, budget: Budget, may_write: Callable[[], Awaitable[bool]]
    ) -> tuple[Outcome, FlagState | None]:
        """Write and read back until the outcome is known: applied, already, conflict, or rejected if it may not write.

        Raises the BackendError that stopped it; `may_have_written` then is whether a write may be on its way.
        """
        return await budget.patiently(lambda: self._attempt(budget, may_write))

    async def _attempt(
        self, budget: Budget, may_write: Callable[[], Awaitable[bool]]
    ) -> tuple[Outcome, FlagState | None]:
        if self._write_next:
            if not await may_write():
                return Outcome.REJECTED, self._snapshot.state
            await self._write(budget)
        with foreseen(self._command.backend):
            found = await self._backend.verify(
                self._snapshot, self._command.target, op_id=self._command.id, deadline=budget.deadline
            )
        if found.verdict is Verdict.LANDED and self.may_have_written:
            if not self._acknowledged:
                await self._acknowledge(found.state)
            return Outcome.APPLIED, found.state
        # If a write is on record, it was reverted since: that is a person's change.
        as_before = found.verdict is Verdict.AS_BEFORE and not self._acknowledged
        if found.verdict is Verdict.UNTOUCHED or as_before:
            if self._acknowledged:
                raise Transient("the backend confirmed the write, but reads as before")
            if self._backend.capabilities.cas is Cas.NONE and self._under_way:
                raise Ambiguous("the write has not landed yet, and without compare-and-set a second one is not safe")
            # Two writes that expect the same version cannot both land.
            self._write_next = True
            if self._attempts:
                raise Transient("the write did not land")
            return await self._attempt(budget, may_write)
        if found.verdict is Verdict.UNKNOWN:
            self.readable = False
            if not self._acknowledged:
                raise Ambiguous("the write was not acknowledged, and the backend cannot be read back")
            self.detail = "; ".join(filter(None, ("acknowledged; it cannot be read back", self.detail)))
            return Outcome.APPLIED, found.state
        safe = found.state is not None and found.state.variant == self._command.target
        return Outcome.ALREADY if safe else Outcome.CONFLICT, found.state

    async def _write(self, budget: Budget) -> None:
        if time.monotonic() >= budget.end:
            # On a busy machine the wait before a retry ends late: the cause is still what stopped the tries before.
            raise self._unsent or Unsent("the time was up before the write; nothing was written")
        self._write_next = False
        self._attempts += 1
        try:
            with foreseen(self._command.backend):
                result = await self._backend.apply(
                    self._snapshot.ref,
                    self._command.target,
                    expect=self._snapshot.state.version,
                    op_id=self._command.id,
                    deadline=budget.deadline,
                )
        except (Throttled, Unsent) as error:
            self._write_next, self._unsent = True, error
            raise
        except (Timeout, Transient, Unforeseen) as error:
            self.may_have_written = True
            self._under_way = self._under_way or not isinstance(error, Failed)
            self.unforeseen = isinstance(error, Unforeseen)
            self.detail = str(error)
            return
        except Conflict as error:
            self.detail = str(error)
            return
        self.detail = result.detail
        if result.outcome in (Outcome.APPLIED, Outcome.DUPLICATE):
            self.may_have_written = True
            await self._acknowledge(result.state)
        elif result.outcome is Outcome.AMBIGUOUS:
            self.may_have_written = self._under_way = True

    async def _acknowledge(self, state: FlagState | None) -> None:
        self._acknowledged = True
        version = None if state is None else state.version
        await self._written(state, {"version": version, "attempts": self._attempts, "detail": self.detail})
