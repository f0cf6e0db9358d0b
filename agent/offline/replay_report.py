"""The end of a replay: what was read, what did not count, and what no trigger could judge."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from agent.telemetry.recorded import lost, matches_nothing, never_judged, unmatched
from agent.telemetry.watch import told
from detectors.conditions.spec import TriggerSpec
from streams.ingest.telemetry_counts import MOST_FAULTS
from streams.replay import Replay


class ReplayReport(NamedTuple):
    """Lines for a person. `matched`: a sample of a watched service was counted."""

    lines: list[str]
    matched: bool


def replay_report(
    run: Replay, recordings: int, specs: Sequence[TriggerSpec], judged: Collection[tuple[str, str]], took_s: float
) -> ReplayReport:
    """Report on an exhausted replay of so many recordings; `judged` are the (flag, trigger) whose verdict changed."""
    counts = run.tally.counts
    lines = list(_tally(run, took_s))
    if len(run.silent()) == recordings:
        return ReplayReport(lines, matched=False)
    notes = [*lost(counts), *unmatched(specs, counts), *never_judged(run.shard.triggers(), judged)]
    lines += [f"flipback: warning: {note}" for note in notes]
    return ReplayReport(lines, matched=not matches_nothing(specs, counts))


def _tally(run: Replay, took_s: float) -> Iterator[str]:
    tally = run.tally
    rejected = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.rejected.items())) or "none"
    yield f"read {tally.records} records in {took_s:.1f} s; rejected samples: {rejected}"
    for reason in tally.reasons:
        yield f"  {reason}"
    for fault in tally.faults.entries()[:MOST_FAULTS]:
        yield f"flipback: warning: {told(fault)}"
    for name in run.silent():
        yield f"{name}: nothing in it was counted; is it a recording in the format that --format names?"
