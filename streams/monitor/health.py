"""What dashboards read: one record a second and partials partition, JSON, statistics as columns.

Columns (`requests[i]` belongs to `scopes[i]`) because a row-wise record of 2,000 scopes costs a loop over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int
from detectors.cells import COUNTS, Cells
from detectors.histogram import midpoints_ms, rank

VERSION = 1
QUANTILES = {"latency_p50": 0.5, "latency_p95": 0.95, "latency_p99": 0.99}


class TriggerHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """A trigger's verdict at the end of the second; `value` is None where nothing can be said.

    `unknown_since` is the event time since when it is unknown, or ok without some instances, while its flag is in use,
    None where it is not; one that is known again keeps it until that is trusted (`streams.monitor.standing`). `told`
    says that an inability was announced for that. `judged_since` is the event time since when the verdict counts
    evidence, as the flag changed then, where `value` is of a window that reaches further back.
    """

    flag: str
    trigger: str
    scope: str
    state: str
    value: float | None
    threshold: float | None
    samples: int
    reason: str
    unknown_since: int | None = None
    told: bool = False
    judged_since: int | None = None


class WithoutFlag(msgspec.Struct, frozen=True):
    """Of a service's requests of the last minute `share` (0 to 1) carry no such flag, and are in no variant of it.

    Of these `failed` (0 to 1) failed, of the others `others_failed`; null where nothing tells. `failing`: far more of
    them than of the others.
    """

    environment: str
    service: str
    flag: str
    share: float
    failed: float | None
    others_failed: float | None
    failing: bool


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Second `[time - 1, time)` of a partials partition, published `at` (Unix seconds).

    A record whose status is not `live` and that has no scopes repeats the last evaluated `time`: nothing newer is
    known.
    `status` is `live`, `catching_up` (verdicts are computed, nothing is commanded) or `unknown`; `detail` says why.
    `counts` holds a list a name of `detectors.cells.COUNTS`, `latency` one a quantile, in milliseconds, null where
    nothing was timed. `sources` counts the instances seen in each scope. `unread` holds, by telemetry topic, how many
    samples of the last minute were received, and of how many of these not even the service could be read, where there
    are any. `never_seen` are the scopes of triggers of which no sample was ever seen. `without_flag` are the flags of
    `@variant` triggers that a notable part of the requests does not carry (`detectors.missing.unflagged`), 20 at most.
    """

    version: int
    time: int
    at: float
    partition: int
    status: str
    detail: str
    scopes: list[tuple[str, str, str, str]]
    counts: dict[str, list[int]]
    latency: dict[str, list[float | None]]
    sources: list[int]
    triggers: list[TriggerHealth]
    unread: dict[str, tuple[int, int]] = {}
    never_seen: list[str] = []
    without_flag: list[WithoutFlag] = []


encoder = msgspec.json.Encoder()
decoder = msgspec.json.Decoder(Health)


def health(
    time: int,
    partition: int,
    cells: Cells | None,
    triggers: Sequence[TriggerHealth],
    *,
    at: float,
    status: str,
    detail: str = "",
    unread: Mapping[str, tuple[int, int]] | None = None,
    never_seen: Sequence[str] = (),
    without_flag: Sequence[WithoutFlag] = (),
) -> Health:
    """Describe the second before `time`; a scope that stands more than once in `cells` (one a source) is summed."""
    if cells is None or not len(cells):
        empty: dict[str, list[Any]] = {name: [] for name in QUANTILES}
        none: dict[str, list[int]] = {name: [] for name in COUNTS}
        told = list(triggers), dict(unread or {}), list(never_seen), list(without_flag)
        return Health(VERSION, time, at, partition, status, detail, [], none, empty, [], *told)
    present, row = np.unique(cells.scope, return_inverse=True)
    counts = np.zeros((len(present), len(COUNTS)), dtype=np.int64)
    np.add.at(counts, row, cells.counts)
    pairs = np.unique(row[cells.instance_cell] * max(len(cells.instances), 1) + cells.instance_id)
    sources = np.bincount(pairs // max(len(cells.instances), 1), minlength=len(present))
    latency = {
        name: or_none(values)
        for name, values in _quantiles(row[cells.hist_cell], cells.hist_bin, cells.hist_count, len(present)).items()
    }
    return Health(
        version=VERSION,
        time=time,
        at=at,
        partition=partition,
        status=status,
        detail=detail,
        scopes=[tuple(cells.scopes[i]) for i in present.tolist()],
        counts={name: counts[:, column].tolist() for column, name in enumerate(COUNTS)},
        latency=latency,
        sources=sources.tolist(),
        triggers=list(triggers),
        unread=dict(unread or {}),
        never_seen=list(never_seen),
        without_flag=list(without_flag),
    )


def or_none(values: NDArray[np.float64]) -> list[float | None]:
    """Values (n,) as JSON has them, None for nan. Asked of each, two thousand scopes would take 0.3 ms a second."""
    found: list[float | None] = values.tolist()
    for i in np.flatnonzero(np.isnan(values)).tolist():
        found[i] = None
    return found


def _quantiles(row: Int, bin_: Int, count: Int, rows: int) -> dict[str, NDArray[np.float64]]:
    """Quantiles of every row from its sparse histogram, in milliseconds rounded to a microsecond; nan where empty."""
    order = np.lexsort((bin_, row))
    row, bin_, running = row[order], bin_[order], np.cumsum(count[order])
    ends = np.searchsorted(row, np.arange(rows), side="right")
    starts = np.searchsorted(row, np.arange(rows), side="left")
    padded = np.concatenate(([0], running))
    totals = padded[ends] - padded[starts]
    values = midpoints_ms()
    result = {}
    for name, q in QUANTILES.items():
        at = np.searchsorted(running, padded[starts] + rank(q, totals))
        filled = totals > 0
        result[name] = np.full(rows, np.nan)
        result[name][filled] = values[bin_[at[filled]]].round(3)
    return result
