"""What the monitor calls with what it finds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from detectors.conditions.spec import TriggerSpec
from detectors.triggers.evaluation import Transition
from streams.condition import ShardCondition
from streams.monitor.drift import Drift
from streams.monitor.drift_watch import DriftTarget
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.standing import Standing


@dataclass(frozen=True, slots=True)
class Handlers:
    """Functions that the monitor calls.

    The monitor awaits `firing` and `judged` before it judges the next second: they may wait for a broker to acknowledge
    a command, and for nothing else. The others return at once; the futures of `transition` and `standing` are done when
    the event is published. `inability` gets a partition, its condition, and whether its inability begins or ends.
    """

    firing: Callable[[EvaluatedSecond], Awaitable[None]]
    transition: Callable[[TriggerSpec, Transition, float | None], asyncio.Future[None]]
    inability: Callable[[int, ShardCondition, bool], object]
    drift: Callable[[DriftTarget, Drift], object]
    judged: Callable[[EvaluatedSecond], Awaitable[None]]
    standing: Callable[[Standing], asyncio.Future[None]]
