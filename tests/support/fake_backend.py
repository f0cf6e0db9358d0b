"""A flag system in memory with injected faults, for tests of the users of a backend."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

from agent.backends.contract import (
    BackendHealth,
    Capabilities,
    Cas,
    FlagRef,
    FlagState,
    Granularity,
    Outcome,
    ReadBack,
    Snapshot,
    Verdict,
    WriteResult,
)
from agent.errors import NotFound, Timeout, Transient


class Fault:
    """Kinds of misbehaviour of one call."""

    HANG = "hang"
    DROP_AFTER = "done, and the answer lost"
    HANG_AFTER = "done, and the answer never comes"
    LIE = "confirmed, and not done"


class FakeBackend:
    """A backend with one flag, that of the first call.

    Each call of an operation uses the first of `faults[operation]`; an exception in it is raised.
    `blind`: it has no read-back. `read_back` are the operations for which `verify` was called.
    """

    def __init__(self, variant: str = "on", cas: Cas = Cas.NATIVE) -> None:
        self.capabilities = Capabilities(
            cas=cas, percent=False, atomic_ledger=False, push=False, granularity=Granularity.FLAG
        )
        self.variant = variant
        self.writes: list[str] = []
        self.written_by: list[str] = []
        self.read_back: list[str] = []
        self.calls: list[str] = []
        self.faults: defaultdict[str, list[str | Exception]] = defaultdict(list)
        self.blind = False
        self._edits = 0
        self._ref: FlagRef | None = None

    def edit(self, variant: str) -> None:
        """Set the flag, as a person would."""
        self.variant = variant
        self._edits += 1

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        await self._begin("read", ref, deadline)
        return self._state()

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        await self._begin("snapshot", ref, deadline)
        return Snapshot(flag=ref.flag, environment=ref.environment, state=self._state(), identity=str(self._edits))

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        return await self._write("apply", ref, target, expect, op_id, deadline)

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        await self._begin("verify", snapshot.ref, deadline)
        self.read_back.append(op_id)
        if self.blind:
            return ReadBack(Verdict.UNKNOWN, None)
        if self.variant == target:
            return ReadBack(Verdict.LANDED, self._state())
        untouched = str(self._edits) == snapshot.identity
        return ReadBack(Verdict.UNTOUCHED if untouched else Verdict.OTHER, self._state())

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        return await self._write("restore", snapshot.ref, snapshot.state.raw, expect, op_id, deadline)

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        raise NotImplementedError

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        return BackendHealth(())

    async def close(self) -> None:
        pass

    async def _begin(self, operation: str, ref: FlagRef, deadline: float) -> str | None:
        self.calls.append(operation)
        self._ref = self._ref or ref
        if ref != self._ref:
            raise NotFound(f"there is no {ref}")
        left = deadline - time.monotonic()
        # Other tasks run here, as they would during a real request.
        await asyncio.sleep(0)
        fault = self.faults[operation].pop(0) if self.faults[operation] else None
        if isinstance(fault, Exception):
            raise fault
        if fault == Fault.HANG:
            await self._hang(left)
        return fault

    async def _write(
        self, operation: str, ref: FlagRef, variant: str, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        fault = await self._begin(operation, ref, deadline)
        if self.variant == variant:
            return WriteResult(Outcome.ALREADY, self._state())
        if self.capabilities.cas is not Cas.NONE and self._state().version != expect:
            return WriteResult(Outcome.CONFLICT, self._state())
        if fault != Fault.LIE:
            self.variant = variant
            self._edits += 1
            self.writes.append(variant)
            self.written_by.append(op_id)
        if fault == Fault.DROP_AFTER:
            raise Transient("connection reset")
        if fault == Fault.HANG_AFTER:
            await self._hang(deadline - time.monotonic())
        return WriteResult(Outcome.APPLIED, self._state())

    async def _hang(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
        raise Timeout("no answer")

    def _state(self) -> FlagState:
        return FlagState(variant=self.variant, percent=None, version=f"v-{self.variant}", raw=self.variant)
