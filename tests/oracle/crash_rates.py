"""Nine labelled series of an application's crash rate, as counters of launches and crashes.

`python -m tests.oracle.crash_rates` prints the recording. An hour of the source is a minute of the recording, because
triggers look back an hour at most. The source gives rates without their unit and without the number of launches: a
value counts as crashes per LAUNCHES, and every hour as LAUNCHES launches.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from agent.offline.backtest import LabelledFault

DATA = Path(__file__).parent.parent / "data"
SOURCE = DATA / "cloud-monitoring-app-crash-rate-1.tar.gz"
START = datetime(2018, 6, 19, tzinfo=UTC)
"""The first hour of the longest series: it keeps its time, and each later hour becomes a minute."""
LAUNCHES = 10_000
MINUTE, INTERVAL = 60, 10


@dataclass(frozen=True)
class Hour:
    """`at` is its minute in the recording, Unix seconds; `crashes` is None if the source has no value."""

    at: int
    crashes: int | None
    labelled: bool


def series() -> dict[str, list[Hour]]:
    """Return the hours of each series; if an hour occurs twice, the first."""
    found = {}
    with tarfile.open(SOURCE) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            content = archive.extractfile(member) if member.name.endswith(".csv") else None
            if content is not None:
                hours: dict[int, Hour] = {}
                for row in csv.DictReader(io.TextIOWrapper(content)):
                    hour = _hour(row)
                    hours.setdefault(hour.at, hour)
                found[member.name.rpartition("/")[2].removesuffix(".csv")] = list(hours.values())
    return found


def _hour(row: dict[str, str]) -> Hour:
    began = datetime.fromisoformat(row["TimeStamp"]).replace(tzinfo=UTC)
    at = int(START.timestamp()) + (began - START) // timedelta(hours=1) * MINUTE
    return Hour(at, round(float(row["Value"])) if row["Value"] else None, row["Label"] == "1")


def records() -> Iterator[bytes]:
    """Return snapshots of all series by time: one at the start of an hour with a value, and six within it."""
    rows = []
    for name, hours in series().items():
        launches = crashes = 0
        for hour in hours:
            if hour.crashes is None:
                continue
            for second in range(0, MINUTE + 1, INTERVAL):
                counters = {
                    "requests": launches + LAUNCHES * second // MINUTE,
                    "errors": crashes + hour.crashes * second // MINUTE,
                }
                # The last snapshot is still in its own minute, before the first one of the next.
                ts = hour.at + second - (0.5 if second == MINUTE else 0)
                rows.append((ts, {"service": name, "counters": counters}))
            launches += LAUNCHES
            crashes += hour.crashes
    for ts, row in sorted(rows, key=lambda row: row[0]):
        yield json.dumps({"ts": ts, **row}).encode()


def faults() -> list[LabelledFault]:
    """Return one fault for each run of labelled hours."""
    found = []
    for name, hours in series().items():
        for labelled, group in groupby(hours, key=lambda hour: hour.labelled):
            if labelled:
                run = list(group)
                found.append(LabelledFault(at=run[0].at, until=run[-1].at + MINUTE, name=f"{len(run)} h", service=name))
    return sorted(found, key=lambda fault: fault.at)


def below(limit: float) -> int:
    """Return how many faults have no hour above the limit."""
    hours = series()
    found = 0
    for fault in faults():
        own = (hour.crashes or 0 for hour in hours[fault.service] if fault.at <= hour.at < fault.until)
        found += max(own) <= limit * LAUNCHES
    return found


if __name__ == "__main__":
    sys.stdout.writelines(record.decode() + "\n" for record in records())
