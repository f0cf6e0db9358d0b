"""Metrics of counts, of a service and of its instances, for the few triggers of which evidence is put together."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from detectors.arrays import Int
from detectors.cells import LATENCY_COUNT, REJECTED, REQUESTS
from detectors.conditions.spec import TriggerSpec
from detectors.conditions.units import shown
from detectors.windows import ratios
from detectors.windows.ratios import PARTS


def is_ratio(spec: TriggerSpec) -> bool:
    """Is the metric a ratio of counts?"""
    return spec.condition.metric in PARTS


def samples_of(spec: TriggerSpec, counts: Int) -> int:
    """How many of the counts (len(COUNTS),) are samples of a metric of bad requests."""
    parts = PARTS.get(spec.condition.metric)
    return int(counts[LATENCY_COUNT]) if parts is None else parts.of(lambda column: int(counts[column]))[1]


def value_of(spec: TriggerSpec, counts: Int, healthy: int = 0) -> float | None:
    """The metric of some counts (len(COUNTS),), with so many `healthy` requests besides; None where it has none."""
    return ratios.value_of(spec.condition.metric, counts, healthy)


def breaches(spec: TriggerSpec, value: float, threshold: float) -> bool:
    return value > threshold if spec.condition.op == ">" else value < threshold


def without(counts: Int, instances: Mapping[str, Int], names: Collection[str]) -> Int:
    """The counts (len(COUNTS),) without those of some instances."""
    rest = counts.copy()
    for name in names:
        if name in instances:
            rest -= instances[name]
    return rest


def heard(counts: Int) -> bool:
    """Has an instance sent anything that counts? One whose samples are all rejected has shown nothing."""
    return bool(counts[REQUESTS]) or not counts[REJECTED]


def single_source(
    spec: TriggerSpec,
    counts: Int,
    instances: Mapping[str, Int],
    threshold: float,
    least: int,
    *,
    healthy: int = 0,
    apart: Int | None = None,
) -> str | None:
    """Without which one instance would the others, having `least` samples, not breach?

    `healthy` requests are taken for well that nobody has seen. `apart` are the counts (len(COUNTS),) of instances that
    were left out; they are asked too where the others are too few without them.
    """
    if not is_ratio(spec) or (len(instances) < 2 and apart is None):
        return None
    for name, own in sorted(instances.items()):
        others = counts - own
        if apart is not None and samples_of(spec, others) < least:
            others = others + apart
        if samples_of(spec, others) < least:
            continue
        value = value_of(spec, others, healthy)
        if value is not None and not breaches(spec, value, threshold):
            kind = spec.condition.label
            return (
                f"only instance {name!r} breaches: {kind} of the others is {shown(kind, value)}, "
                f"limit {shown(kind, threshold)}"
            )
    return None
