"""The result of one evaluated second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectors.conditions.spec import TriggerSpec
from detectors.triggers.evaluation import Transition
from streams.monitor.drift import Drift
from streams.monitor.drift_watch import DriftTarget
from streams.monitor.evidence import FiringEvidence
from streams.monitor.health import Health
from streams.monitor.observer import Observer
from streams.monitor.standing import Standing


@dataclass(frozen=True, slots=True)
class EvaluatedSecond:
    """What the evaluation at `time` (Unix seconds, the end of the second) found.

    `muted` says that no command may follow from it. `transitions` are the triggers whose state changed. `firing` is the
    evidence of the triggers that fire, without those of flags that are safe. `ill` are the (environment, flag) pairs
    with a rollback trigger whose condition is true, held or not yet, or that has half of the evidence for an alarm;
    empty if muted. `drifts` are drifts of rates, on which nothing acts; empty if muted. `health` is None if the record
    of this second was published before. `standing` are verdicts that have stayed unknown, or no longer do. `judged_at`
    is the clock at the evaluation. `observer` reads the windows as they are at `time`, until the next second is asked
    for.
    """

    time: int
    muted: bool
    transitions: Sequence[tuple[TriggerSpec, Transition]]
    firing: Sequence[FiringEvidence]
    ill: frozenset[tuple[str, str]]
    drifts: Sequence[tuple[DriftTarget, Drift]]
    health: Health | None
    observer: Observer
    standing: Sequence[Standing] = ()
    judged_at: float | None = None
