"""Metrics computed from counts of a service and of its instances, for the few triggers whose evidence is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from detectors.arrays import Int
from detectors.cells import LATENCY_COUNT, REJECTED, REQUESTS
from detectors.conditions.spec import TriggerSpec
from detectors.conditions.units import shown
from detectors.windows import ratios
from detectors.windows.ratios import PARTS


def is_ratio(spec: TriggerSpec) -> bool:
    """Is the metric one count divided by another?"""
    return spec.condition.metric in PARTS


def samples_of(spec: TriggerSpec, counts: Int) -> int:
    """How many samples of the trigger's metric the counts (len(COUNTS),) have."""
    parts = PARTS.get(spec.condition.metric)
    return int(counts[LATENCY_COUNT]) if parts is None else parts.of(lambda column: int(counts[column]))[1]


def value_of(spec: TriggerSpec, counts: Int, healthy: int = 0) -> float | None:
    """The metric of some counts (len(COUNTS),) with `healthy` good requests added; None if it has no value."""
    return ratios.value_of(spec.condition.metric, counts, healthy)


def breaches(spec: TriggerSpec, value: float, threshold: float) -> bool:
    return value > threshold if spec.condition.op == ">" else value < threshold


def without(counts: Int, instances: Mapping[str, Int], names: Collection[str]) -> Int:
    """The counts (len(COUNTS),) less those of some instances."""
    rest = counts.copy()
    for name in names:
        if name in instances:
            rest -= instances[name]
    return rest


def heard(counts: Int) -> bool:
    """Has an instance sent a sample that counts? One whose samples are all rejected is no source of evidence."""
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
    """A sentence that names the one instance without which the others do not breach; None if there is none.

    The others must have `least` samples. `healthy` requests, which are missing, are added as good ones. `apart` are the
    counts (len(COUNTS),) of instances that were left out; they count as others if too few are left without them.
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
