"""Which injected faults of the Online Boutique recording a latency trigger saw, and after how many seconds.

`python -m tests.oracle.online_boutique` prints docs/replay-online-boutique.md; a test holds the page to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from agent.config_load import load
from agent.recordings import read
from agent.replay import Change, Evaluated, replay

DATA = Path(__file__).parent.parent / "data"
RECORDING = DATA / "online-boutique-2022-08-22.requests.jsonl.gz"
FAULTS = DATA / "online-boutique-2022-08-22.faults.json"
CONFIG = DATA / "online-boutique.yaml"

WITHIN = 300
"""Seconds after an injection within which a firing is counted as its detection; faults are 8 minutes apart."""


@dataclass(frozen=True)
class Fault:
    at: int
    kind: str
    pod: str


def faults() -> list[Fault]:
    rows = chain.from_iterable(json.loads(FAULTS.read_text()).values())
    return sorted(
        (Fault(int(r["inject_timestamp"]), r["inject_type"], r["inject_pod"]) for r in rows), key=lambda f: f.at
    )


def firings(changes: Sequence[Change]) -> list[tuple[int, int]]:
    """Spans from firing to not firing."""
    spans, begun = [], None
    for change in changes:
        if change.to == "firing" and begun is None:
            begun = change.time
        elif change.to != "firing" and begun is not None:
            spans.append((begun, change.time))
            begun = None
    return spans + ([(begun, changes[-1].time)] if begun is not None else [])


def page() -> str:
    """The report as Markdown."""
    config = load(CONFIG)
    _, lines = replay(config, [RECORDING], "json", evaluations=True)
    changes, known = [], 0
    for line in lines:
        if isinstance(line, Change):
            changes.append(line)
        elif isinstance(line, Evaluated):
            known += line.state != "unknown"
    spans = firings(changes)
    times = sorted(json.loads(record)["ts"] for record in read(RECORDING, "json"))
    rows, seen, explained = [], 0, set()
    for fault in faults():
        after = sum(fault.at <= ts < fault.at + WITHIN for ts in times)
        hit = next((span for span in spans if fault.at <= span[0] < fault.at + WITHIN), None)
        running = any(begun < fault.at < ended for begun, ended in spans)
        explained |= {hit} if hit else set()
        seen += hit is not None
        found = f"{hit[0] - fault.at} s" if hit else "firing already" if running else "no"
        clock = datetime.fromtimestamp(fault.at, UTC).strftime("%H:%M:%S")
        rows.append(f"| {clock} | {fault.kind} | {fault.pod.rsplit('-', 2)[0]} | {after} | {found} |")
    others = [span for span in spans if span not in explained]
    condition = config.trigger_specs()[0].condition
    return "\n".join(
        [
            "# Replay: Online Boutique under fault injection",
            "",
            "A recording of the Online Boutique front end of 22 August 2022 (IntelligentDDS/Nezha, MIT), 03:52 to",
            f"07:55 UTC, {len(times):,} requests, replayed with one latency trigger for its one service. The trigger",
            "was not tuned to the recording: `latency_p90 > 2s over 60s for 30s`.",
            "",
            "Made by `python -m tests.oracle.online_boutique`; a test holds this page to what the replay gives.",
            "",
            f"Seen: {seen} of {len(rows)} faults, counted when the trigger begins to fire within {WITHIN} s of it.",
            f"Other firings: {len(others)} in {known / 3600:.2f} hours with enough samples to judge"
            f" (at least {condition.default_min_samples} in the window).",
            "",
            "A fault in one of a dozen services behind the front end, injected while few requests pass through it,",
            "need not move the front end's p90, and an exception is fast. The recording has no outcome, so errors",
            "cannot be judged. Gaps between the minutes around each fault are in the source.",
            "",
            "| injected (UTC) | kind | where | requests in the next 300 s | seen after |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(page())
