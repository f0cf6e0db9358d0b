"""Announce a flag that changes faster than its triggers can judge its versions.

Each version begins with an empty timer, so a ramp that is raised every 10 s never fulfils `over 10s for 20s`. Only the
fast tier and quicker proofs can see what such a ramp breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.decisions.turns import FlagKey
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.state.flags import FlagStatus
from detectors.conditions.durations import format_seconds
from detectors.conditions.spec import TriggerSpec

VERSIONS = 3
"""Versions in a row that are too short to be judged before that is announced: two may be a person's mistake."""


@dataclass(slots=True)
class _ChangeRun:
    """Changes that follow each other too fast: their count, the times of the first and the last, the last version."""

    version: str
    count: int
    begun: float
    last: float
    announced: bool = False


class Ramps:
    """The changes of all flags that triggers roll back. `emit` publishes an event."""

    def __init__(self, specs: Sequence[TriggerSpec], emit: Callable[[Event], object]) -> None:
        self._slowest: dict[FlagKey, TriggerSpec] = {}
        for spec in specs:
            key = spec.environment, spec.flag
            if spec.action == "rollback" and spec.condition.hold:
                self._slowest[key] = max(self._slowest.get(key, spec), spec, key=_need)
        self._emit = emit
        self._runs: dict[FlagKey, _ChangeRun] = {}

    def update(self, status: FlagStatus) -> None:
        """Record a state of a flag; states come in the order in which they were published."""
        key = status.environment, status.flag
        if key not in self._slowest or status.changed_at is None:
            return
        run = self._runs.get(key)
        if run is not None and run.version == status.version:
            return
        # A safe version needs no judgement and ends the run.
        fast = run is not None and not status.safe and 0 <= status.changed_at - run.last < _need(self._slowest[key])
        if run is None or not fast:
            count = 0 if status.safe else 1
            announced = run is not None and run.announced
            self._runs[key] = _ChangeRun(status.version, count, status.changed_at, status.changed_at, announced)
            return
        run.version, run.count, run.last = status.version, run.count + 1, status.changed_at

    def judged(self, t: int, flags: Iterable[FlagKey]) -> None:
        """Announce at second `t` which of a shard's `flags` change too fast, and which no longer do."""
        for key in flags:
            run = self._runs.get(key)
            if run is None:
                continue
            spec = self._slowest[key]
            fast = run.count >= VERSIONS and t - run.last < _need(spec)
            if fast == run.announced:
                continue
            run.announced = fast
            self._emit(_event(spec, run, t))


def _need(spec: TriggerSpec) -> int:
    """Return the seconds that a version must last for a held condition to judge that version alone."""
    return spec.condition.over + spec.condition.hold


def _event(spec: TriggerSpec, run: _ChangeRun, t: int) -> Event:
    state = "begun" if run.announced else "ended"
    reason = "the flag stays as it is for long enough to be judged, or is safe"
    if run.announced:
        need, condition = format_seconds(_need(spec)), spec.condition
        reason = (
            f"the flag changed {run.count} times within {run.last - run.begun:.0f} s, and trigger {spec.name!r} needs "
            f"{need} of one version (over {format_seconds(condition.over)} for {format_seconds(condition.hold)}): no "
            f"version is judged by what must hold. Leave {need} between steps, or shorten the trigger's over and for"
        )
    return Event(
        type=events.INABILITY,
        subject=events.subject_of(spec.environment, spec.flag),
        data={
            "trigger": spec.name,
            "flag_version": run.version,
            "state": state,
            "status": "changes too fast",
            "reason": reason,
        },
        id=events.event_id("ramp", spec.environment, spec.flag, run.version, state),
        time=float(t),
    )
