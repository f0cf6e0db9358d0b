"""Front-end requests of the Online Boutique under fault injection, and when which fault was injected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from agent.offline.backtest import LabelledFault
from agent.offline.recordings import read

DATA = Path(__file__).parent.parent / "data"
SOURCE = DATA / "online-boutique-2022-08-22.requests.jsonl.gz"
FAULTS = DATA / "online-boutique-2022-08-22.faults.json"


def records() -> Iterator[bytes]:
    """The source already has flipback's format."""
    return read(SOURCE, "json")


def faults() -> list[LabelledFault]:
    """By time; `name` is the kind and where, such as `cpu_contention of frontend`."""
    rows = list(chain.from_iterable(json.loads(FAULTS.read_text()).values()))
    found = []
    for row in rows:
        at, where = int(row["inject_timestamp"]), row["inject_pod"].rsplit("-", 2)[0]
        found.append(LabelledFault(at=at, until=at, name=f"{row['inject_type']} of {where}"))
    return sorted(found, key=lambda fault: fault.at)
