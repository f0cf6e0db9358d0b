"""Health records, which dashboards read: one each second and partials partition, in JSON, with statistics as columns.

Value i of a column belongs to `scopes[i]`: a record with a row for each of 2,000 scopes would cost a loop over them.
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
    """The verdict of a trigger at the end of the second; `value` is None if the metric has none.

    `unknown_since` is the event time since which the verdict is unknown, or ok without some instances, while its flag
    is in use; None if it is neither. A verdict that is known again keeps it until it has been known for long enough
    (`streams.monitor.standing`). `told` says that this was announced. `judged_since` is the event time from which on
    the verdict counts evidence: the flag changed then, and `value` is of a window that reaches further back.
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
    """A flag that a part of its service's requests of the last minute does not carry, so that they are in no variant.

    `share` (0 to 1) is this part. `failed` (0 to 1) is the share of failures in it, `others_failed` that in the other
    requests; null if no outcome is known. `failing` says that far more of them fail than of the others.
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

    A record without scopes whose status is not `live` repeats the last evaluated `time`: nothing newer is known.
    `status` is `live`, `catching_up` (verdicts are computed, nothing is commanded) or `unknown`; `detail` says why.
    `counts` has a list for each name of `detectors.cells.COUNTS`, `latency` one for each quantile, in milliseconds,
    null if no request was timed. `sources` counts the instances seen in each scope. `unread` has the topics of which
    the service of some samples could not be read: how many samples of the last minute were received, and how many of
    them could not be read. `never_seen` are the scopes of triggers of which no sample was ever seen. `without_flag` are
    the flags of `@variant` triggers that a notable part of the requests does not carry
    (`detectors.missing.unflagged`), 20 at most.
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
    """Make the record of the second before `time`; `cells` may have several cells of a scope, which are summed."""
    if cells is None or not len(cells):
        empty: dict[str, list[Any]] = {name: [] for name in QUANTILES}
        none: dict[str, list[int]] = {name: [] for name in COUNTS}
        rest = list(triggers), dict(unread or {}), list(never_seen), list(without_flag)
        return Health(VERSION, time, at, partition, status, detail, [], none, empty, [], *rest)
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
    """The values (n,) with None for nan, as in JSON. To test each of 2,000 values would take 0.3 ms."""
    found: list[float | None] = values.tolist()
    for i in np.flatnonzero(np.isnan(values)).tolist():
        found[i] = None
    return found


def _quantiles(row: Int, bin_: Int, count: Int, rows: int) -> dict[str, NDArray[np.float64]]:
    """The quantiles of each row from its sparse histogram, in milliseconds to three decimals; nan if it is empty."""
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
