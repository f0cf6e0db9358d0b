"""The evidence of a command in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.commands.command import Evidence
from detectors.cells import COUNTS
from detectors.conditions.units import shown
from detectors.missing.unknown_reason import clock
from detectors.windows.store import DISPLAY


def evidence_lines(seen: Evidence) -> Iterator[str]:
    """Yield the evidence of a command in words."""
    if seen.by:
        yield f"by hand, by {seen.by}: {seen.reason}"
        return
    control = "" if seen.control is None else f"; the control had {shown(seen.metric, seen.control)}"
    yield f"{breach(seen)}{control}"
    yield f"{seen.samples:,} samples in {seen.window[1] - seen.window[0]:.0f} s: {_counts(seen.counts)}"
    yield from _by_variant(seen)
    names = f" ({', '.join(seen.instances)})" if seen.instances else ""
    yield f"from {seen.sources} instances{names}; {seen.age_s:.1f} s old when it fired"
    since = f"{clock(int(seen.first_true_at))}Z"
    yield f"true since {since}, for {seen.fired_at - seen.first_true_at:.0f} s when the command was given"


def breach(seen: Evidence) -> str:
    """Return the value of the metric when the trigger fired, and the trigger's limit."""
    value, limit = shown(seen.metric, seen.value), shown(seen.metric, seen.threshold)
    return f"{seen.metric} of {seen.scope} was {value}, limit {seen.op} {limit}"


def _by_variant(seen: Evidence) -> Iterator[str]:
    """Yield the requests and failures of each variant of the flag, counted over the last minute at most."""
    if seen.variants and seen.window[1] - seen.window[0] > DISPLAY:
        yield f"  in the last {DISPLAY} s of them:"
    for variant, counts in seen.variants.items():
        yield f"  {variant}: {_counts(counts)}"


def _counts(counts: Mapping[str, int]) -> str:
    """Return the counts that are not zero; the sum of latencies is shown as their mean."""
    words = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count and name in _COUNTED]
    timed, total = counts.get("latency_count", 0), counts.get("latency_us", 0)
    if timed:
        words.append(f"mean latency {shown('latency_mean', total / timed / 1000)}")
    return ", ".join(words)


_COUNTED = frozenset(COUNTS) - {"latency_count", "latency_us"}
