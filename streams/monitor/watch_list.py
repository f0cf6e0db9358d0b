"""The telemetry that triggers and drift targets need."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.conditions.spec import TriggerSpec
from detectors.windows.overdue import limit_of
from streams.decoders.watch_list import WatchList
from streams.monitor.drift_watch import DriftTarget


def watch_list(specs: Sequence[TriggerSpec], drift_targets: Sequence[DriftTarget] = ()) -> WatchList:
    """The scopes, measures and latency limits of the triggers, all variants of their flags, and the drift targets'
    services."""
    scopes = [scope for spec in specs for scope in (spec.scope, spec.control_scope) if scope is not None]
    flags = [spec.scope._replace(flag=spec.flag, variant="") for spec in specs]
    # Before a trigger of the whole service leads to a rollback, it is compared with the safe variant.
    safe = [spec.scope._replace(flag=spec.flag, variant=spec.safe_variant) for spec in specs]
    measures = [spec.condition.measure for spec in specs if spec.condition.measure is not None]
    limits = [(spec.environment, spec.service, limit) for spec in specs if (limit := limit_of(spec)) is not None]
    return WatchList.of([*scopes, *flags, *safe, *(target.scope for target in drift_targets)], measures, limits)
