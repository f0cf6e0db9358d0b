"""Triggers of flags in use that judge nothing for a lasting reason, while other triggers of the flag may work.

For example, samples without an outcome blind all triggers on errors and leave those on latency at work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from agent.armed.view import FlagKey
from agent.heartbeats.heartbeat import Obstacle
from detectors.cells import REQUESTS, Scope
from detectors.conditions.spec import TriggerSpec
from detectors.missing.unknown_reason import UnknownReason, clock
from detectors.state import BEFORE
from detectors.triggers.state_machine import State
from streams.condition import shortened
from streams.monitor.shard import Shard

BLIND_AFTER: Final = 30
"""Seconds of event time for which a trigger may be unknown without a sample, for example after a start."""
TRAFFIC: Final = 30
"""Requests of a service in the display window; with fewer, a variant without any means little."""

_FLAGS: Final = 5
"""Flags that get an obstacle each; a heartbeat has room for 20 obstacles of all kinds."""
_REASONS: Final = 2
_MOST: Final = 1_000
"""Triggers of a shard that are checked each second: if all telemetry fails, all 40,000 may be blind."""
_DO: Final = "mend what the services send, or take the trigger out; `flipback doctor` reads the samples"


class Blind(NamedTuple):
    """A trigger that judges nothing since the second `since`, and why."""

    spec: TriggerSpec
    since: int
    reason: str


def blind(shard: Shard) -> Iterator[Blind]:
    """The rollback triggers that are unknown without usable samples for `BLIND_AFTER`, while their service has
    requests, and those with an open inability. Few samples, for example at night, do not make a trigger blind.
    """
    result, standing = shard.verdicts, shard.standing
    if result is None:
        return
    stands = (result.state == State.UNKNOWN) & (standing.since != BEFORE)
    own, control = result.own, result.control
    missing = (own.unknown == UnknownReason.MISSING) | (control.unknown == UnknownReason.MISSING)
    empty = (own.samples == 0) & ((own.unknown == UnknownReason.FEW_SAMPLES) | (own.unknown == UnknownReason.NO_VALUE))
    lasting = result.t - standing.since >= BLIND_AFTER
    for i in np.flatnonzero(stands & (standing.reported | (lasting & (missing | empty))))[:_MOST].tolist():
        spec = result.specs[i]
        if spec.action != "rollback" or spec.shadow:
            continue
        if standing.reported[i] or missing[i] or _gone(shard, spec, result.t, requests=int(own.requests[i])):
            yield Blind(spec, int(standing.since[i]), result.reason(i))


def unjudged(found: Iterable[Blind], silent: Collection[tuple[str, str, str]]) -> Iterator[Obstacle]:
    """An obstacle for each flag, and one for all flags beyond the first five.

    `silent` (environment, flag, service) are left out: another obstacle names them.
    """
    flags: dict[FlagKey, list[Blind]] = {}
    for one in found:
        if (one.spec.environment, one.spec.flag, one.spec.service) not in silent:
            flags.setdefault((one.spec.environment, one.spec.flag), []).append(one)
    named = sorted(flags.items())
    for flag, blinds in named[:_FLAGS]:
        reasons = list(dict.fromkeys(one.reason for one in blinds))
        more = f"; and {len(reasons) - _REASONS} more reasons" if len(reasons) > _REASONS else ""
        yield _obstacle(
            f"{'/'.join(flag)} is not judged by {shortened([one.spec.name for one in blinds])} since "
            f"{clock(min(one.since for one in blinds))} UTC: {'; '.join(reasons[:_REASONS])}{more}"
        )
    if rest := named[_FLAGS:]:
        yield _obstacle(
            f"{len(rest)} more flags are not judged by some of their triggers: "
            f"{shortened(['/'.join(flag) for flag, _ in rest])}"
        )


def _obstacle(why: str) -> Obstacle:
    # It waits, so that it does not block an update: an instance that is not ready mends no samples.
    return Obstacle(what="telemetry", why=why, do=_DO, waits=True).bounded()


def _gone(shard: Shard, spec: TriggerSpec, t: int, *, requests: int) -> bool:
    """Does the service have requests, and none of them what the trigger judges?

    `requests` are those in the trigger's window, of which none has its field.
    """
    store = shard.store
    row = store.row(Scope(spec.environment, spec.service), store.display)
    if row < 0 or store.window(store.display).sums[REQUESTS][row] < TRAFFIC:
        return False
    newest = store.newest(spec.scope)
    return requests > 0 or newest is None or t - newest >= BLIND_AFTER
