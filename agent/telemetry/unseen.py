"""Flags in use that no trigger can roll back, because no sample matches their triggers.

A misspelt service, flag or variant looks like that for ever, a service without requests for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from agent.armed.view import FlagKey
from agent.heartbeats.heartbeat import Obstacle
from agent.telemetry.blind import blind, unjudged
from agent.telemetry.recorded import unmatched
from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec
from detectors.windows.store import WindowStore
from streams.condition import shortened
from streams.monitor.shard import Shard


def unseen(
    readings: Iterable[tuple[TriggerSpec, int]], in_use: Collection[FlagKey], scopes: Callable[[], Collection[Scope]]
) -> Iterator[Obstacle]:
    """One obstacle for all flags `in_use` whose triggers have no sample in their windows, in one service each.

    `readings` are the triggers with their samples, `scopes` finds those of which there are samples.
    """
    specs = silent(readings, in_use)
    if not specs:
        return
    counts: dict[Scope, Any] = dict.fromkeys(scopes())
    sentences = list(unmatched(specs, counts))
    names = shortened(sorted({f"{spec.environment}/{spec.flag} in {spec.service}" for spec in specs}))
    yield Obstacle(
        what="telemetry",
        why=f"no sample came in the windows of the triggers of {names}" + "".join(f"; {one}" for one in sentences[:3]),
        do="are the names right in the samples and in the file, and is the service at work?",
        waits=True,
    )


def silent(readings: Iterable[tuple[TriggerSpec, int]], in_use: Collection[FlagKey]) -> list[TriggerSpec]:
    """The rollback triggers of flags in use of which none in the same service has a sample."""
    groups: dict[tuple[str, str, str], list[tuple[TriggerSpec, int]]] = {}
    for spec, samples in readings:
        if spec.action == "rollback" and not spec.shadow and (spec.environment, spec.flag) in in_use:
            groups.setdefault((spec.environment, spec.flag, spec.service), []).append((spec, samples))
    return [spec for group in groups.values() if not any(samples for _, samples in group) for spec, _ in group]


def unseen_by(shards: Collection[Shard], in_use: Collection[FlagKey]) -> Iterator[Obstacle]:
    """As `unseen`, of the shards of a monitor that have been judged; and which triggers are blind though others see."""
    # This runs every second. Most shards have no trigger without samples, and each service is in one shard.
    judged = [shard.verdicts for shard in shards if shard.verdicts and not shard.verdicts.samples.all()]
    readings = [
        (spec, samples)
        for verdicts in judged
        for spec, samples in zip(verdicts.specs, verdicts.samples.tolist(), strict=True)
    ]
    yield from unseen(readings, in_use, lambda: [scope for shard in shards for scope in _with_samples(shard.store)])
    of_none = {(spec.environment, spec.flag, spec.service) for spec in silent(readings, in_use)}
    found = (one for shard in shards for one in blind(shard))
    yield from unjudged((one for one in found if (one.spec.environment, one.spec.flag) in in_use), of_none)


def _with_samples(store: WindowStore) -> Iterator[Scope]:
    """The scopes that have ever had a sample. Scopes of triggers have a row before their first sample."""
    seen = store.window(store.display).seen
    for scope in store.scopes():
        row = store.row(scope, store.display)
        if row >= 0 and seen[row]:
            yield scope
