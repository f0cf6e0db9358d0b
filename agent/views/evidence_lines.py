"""The evidence of a command in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.commands.command import Evidence
from detectors.cells import COUNTS
from detectors.conditions.units import shown
from detectors.missing.unknown_reason import clock
from detectors.windows.store import DISPLAY


def evidence_lines(evidence: Evidence) -> Iterator[str]:
    """Yield the evidence of a command in words."""
    if evidence.by:
        yield f"by hand, by {evidence.by}: {evidence.reason}"
        return
    control = "" if evidence.control is None else f"; the control had {shown(evidence.metric, evidence.control)}"
    yield f"{breach(evidence)}{control}"
    yield f"{evidence.samples:,} samples in {evidence.window[1] - evidence.window[0]:.0f} s: {_counts(evidence.counts)}"
    yield from _by_variant(evidence)
    names = f" ({', '.join(evidence.instances)})" if evidence.instances else ""
    yield f"from {evidence.sources} instances{names}; {evidence.age_s:.1f} s old when it fired"
    since = f"{clock(int(evidence.first_true_at))}Z"
    yield f"true since {since}, for {evidence.fired_at - evidence.first_true_at:.0f} s when the command was given"


def breach(evidence: Evidence) -> str:
    """Return the value of the metric when the trigger fired, and the trigger's limit."""
    value, limit = shown(evidence.metric, evidence.value), shown(evidence.metric, evidence.threshold)
    return f"{evidence.metric} of {evidence.scope} was {value}, limit {evidence.op} {limit}"


def _by_variant(evidence: Evidence) -> Iterator[str]:
    """Yield the requests and failures of each variant of the flag, counted over the last minute at most."""
    if evidence.variants and evidence.window[1] - evidence.window[0] > DISPLAY:
        yield f"  in the last {DISPLAY} s of them:"
    for variant, counts in evidence.variants.items():
        yield f"  {variant}: {_counts(counts)}"


def _counts(counts: Mapping[str, int]) -> str:
    """Return the counts that are not zero; the sum of latencies is shown as their mean."""
    words = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count and name in _COUNTED]
    timed, total = counts.get("latency_count", 0), counts.get("latency_us", 0)
    if timed:
        words.append(f"mean latency {shown('latency_mean', total / timed / 1000)}")
    return ", ".join(words)


_COUNTED = frozenset(COUNTS) - {"latency_count", "latency_us"}
