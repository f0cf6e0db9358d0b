"""What triggers read: the windows and measures that a store must keep for them."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.conditions.spec import TriggerSpec
from detectors.missing.unattributed import service_wants
from detectors.windows.overdue import limit_of, measure_of
from detectors.windows.store import Want


def wants(specs: Sequence[TriggerSpec]) -> list[Want]:
    """Return the windows that the triggers read."""
    found = []
    for spec in specs:
        condition = spec.condition
        lengths = (1, *spec.windows) if spec.fast or condition.sequential else spec.windows
        for scope in (spec.scope, spec.control_scope):
            if scope is not None:
                found += [Want(scope, seconds, condition.metric == "latency_quantile") for seconds in lengths]
    return found + service_wants(specs)


def measures(specs: Sequence[TriggerSpec]) -> list[str]:
    """Return the measures that the triggers read: custom ones, and the sums of requests overdue for latency limits."""
    custom = [spec.condition.measure for spec in specs if spec.condition.measure is not None]
    return custom + [measure_of(limit) for limit in map(limit_of, specs) if limit is not None]
