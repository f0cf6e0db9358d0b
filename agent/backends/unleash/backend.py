"""Unleash, by its admin API: a flag's environment is enabled (`on`) or disabled (`off`), or rolled out gradually.

Unleash does not compare before a write (8.2.0 accepts any If-Match), so this backend compares the definition's
fingerprint just before it; a person's change in the milliseconds between is overwritten. Disabling and enabling are
idempotent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from agent.backends import settings as config
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
from agent.backends.unleash.api import Admin
from agent.backends.unleash.state import OFF, ON, FeatureDefinition, by_id, decode, parameters
from agent.errors import BackendError, Invalid, Timeout, Unsupported, nothing_sent

_AT_ONCE = 4
"""Flags that a health check reads at the same time."""


class UnleashBackend:
    """A backend of one project and one environment of Unleash. It ignores the environment of a FlagRef.

    Raises ConfigError if the address is not secure or the token's file cannot be used. The repr shows no token.
    """

    capabilities = Capabilities(
        cas=Cas.NONE,
        percent=True,
        atomic_ledger=False,
        push=False,
        granularity=Granularity.FLAG,
        # One request per flag: 200 flags each second took half of a server's core and delayed a flip.
        read_every=10.0,
        reads_at_once=2,
    )

    def __init__(self, settings: config.Unleash) -> None:
        self._admin = Admin(settings)

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return (await self._admin.definition(ref.flag, deadline)).state()

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        # A change between the two reads, in either order, is harmless: either a read-back does not find the snapshot
        # untouched, or a write does not find its version.
        definition, identity = await asyncio.gather(
            self._admin.definition(ref.flag, deadline), self._admin.latest_event(ref.flag, deadline)
        )
        return Snapshot(flag=ref.flag, environment=ref.environment, state=definition.state(), identity=identity)

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        _check_variant(ref, target)
        # Unleash cannot store the operation's id. The caller keeps the ledger.
        found = await self._before_write(ref, deadline)
        # Before `switched_to`, which refuses `on` for some strategies: a flag that gives the target needs no write.
        if found.state().variant == target:
            return WriteResult(Outcome.ALREADY, found.state())
        wanted = found.switched_to(target)
        if found.version != expect:
            return _conflict(found, expect)
        await self._admin.switch(ref.flag, target, deadline)
        return WriteResult(Outcome.APPLIED, wanted.state())

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        found = await self.snapshot(snapshot.ref, deadline=deadline)
        if found.state.version == decode(snapshot.state.raw).with_enabled(target == ON).version:
            return ReadBack(Verdict.LANDED, found.state)
        same = (found.identity, found.state.version) == (snapshot.identity, snapshot.state.version)
        return ReadBack(Verdict.UNTOUCHED if same else Verdict.OTHER, found.state)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        """Restore the flag as the contract says: one write after a flip, one more per strategy after `set_percent`.

        Raises Unsupported if a strategy of the snapshot was deleted: a new one would have another id.
        """
        ref, wanted = snapshot.ref, decode(snapshot.state.raw)
        found = await self._before_write(ref, deadline)
        if found.version == wanted.version:
            return WriteResult(Outcome.ALREADY, found.state())
        if found.version != expect:
            return _conflict(found, expect)
        if found.dependencies != wanted.dependencies:
            raise Unsupported(f"the parents of flag {ref.flag!r} were changed; put them back in Unleash")
        now, before = by_id(found.strategies), by_id(wanted.strategies)
        if not before.keys() <= now.keys():
            raise Unsupported(f"a strategy of flag {ref.flag!r} was deleted, and cannot come back with its id")
        # In this order the flag never gives `on` to more subjects than before or after: off first, on last.
        if not wanted.enabled and found.enabled:
            await self._admin.switch(ref.flag, OFF, deadline)
        for name, strategy in now.items():
            if name not in before:
                await self._admin.delete_strategy(ref.flag, name, deadline)
            elif strategy != before[name]:
                await self._admin.patch_strategy(ref.flag, name, strategy, before[name], deadline)
        if wanted.enabled and not found.enabled:
            await self._admin.switch(ref.flag, ON, deadline)
        return WriteResult(Outcome.APPLIED, await self.read(ref, deadline=deadline))

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        """Give `on` to a whole percentage, as the contract says; keep the rollout's stickiness and group id.

        Raises Unsupported if the flag has other strategies than one gradual rollout.
        """
        if (variant, rest) != (ON, OFF):
            raise Unsupported(f"Unleash rolls out {ON!r} and leaves {OFF!r}, not {variant!r} and {rest!r}")
        if percent != int(percent):
            raise Unsupported(f"Unleash's SDKs know whole percents only, not {percent:g}")
        found, share = await self._before_write(ref, deadline), str(int(percent))
        if found.enabled and found.share == percent:
            return WriteResult(Outcome.ALREADY, found.state())
        if found.dependencies or (found.active and found.rollout is None):
            raise Unsupported(
                f"flag {ref.flag!r} has strategies of its own, or a parent: a percentage needs one gradual rollout "
                "without constraints, segments and variants"
            )
        if found.version != expect:
            return _conflict(found, expect)
        if found.rollout is None:
            await self._admin.add_rollout(ref.flag, share, deadline)
        elif found.share != percent:
            ((name, old),) = by_id([found.rollout]).items()
            wanted = {**old, "parameters": {**parameters(old), "rollout": share}}
            await self._admin.patch_strategy(ref.flag, name, old, wanted, deadline)
        if not found.enabled:
            await self._admin.switch(ref.flag, ON, deadline)
        return WriteResult(Outcome.APPLIED, await self.read(ref, deadline=deadline))

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        """Check that Unleash answers, that the token may switch flags, and that each flag can be given its target."""
        try:
            problems = await self._admin.obstacles(deadline)
        except Timeout:
            raise
        except BackendError as error:
            return BackendHealth((str(error),))
        turns = asyncio.Semaphore(_AT_ONCE)
        found = await asyncio.gather(*(self._obstacle(ref, target, turns, deadline) for ref, target in wanted))
        return BackendHealth((*problems, *filter(None, found)))

    async def close(self) -> None:
        await self._admin.close()

    async def _before_write(self, ref: FlagRef, deadline: float) -> FeatureDefinition:
        """Read the definition before a write. A read without an answer raises Unsent, because nothing was written."""
        _check_time(deadline)
        with nothing_sent():
            return await self._admin.definition(ref.flag, deadline)

    async def _obstacle(self, ref: FlagRef, target: str, turns: asyncio.Semaphore, deadline: float) -> str | None:
        """Return what would stop this flag's flip."""
        try:
            _check_variant(ref, target)
            async with turns:
                (await self._admin.definition(ref.flag, deadline)).switched_to(target)
        except Timeout:
            raise
        except BackendError as error:
            return str(error) if ref.flag in str(error) else f"flag {ref.flag!r}: {error}"
        return None

    def __repr__(self) -> str:
        return f"Unleash({self._admin!r})"


def _check_variant(ref: FlagRef, variant: str) -> None:
    if variant not in (ON, OFF):
        raise Invalid(f"flag {ref.flag!r} in Unleash has the variants {ON!r} and {OFF!r}, not {variant!r}")


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise Timeout("Unleash: the time was up before anything was sent")


def _conflict(found: FeatureDefinition, expect: str) -> WriteResult:
    return WriteResult(Outcome.CONFLICT, found.state(), f"version is {found.version}, expected {expect}")
