"""Additive statistics of scopes in seconds of event time, as columns.

Stage 1 sends `Cells` blocks and stage 2 adds them up: one row, a cell, per (scope, second), plus three sparse sections
that refer to those rows by index (latency histogram, instances, custom measures). All numbers are integers, so that a
sum does not depend on the order of its terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:  # `flipback init` reads the table of metrics, and with it this file, without the 0.1 s of numpy.
    from detectors.arrays import Int

COUNTS = (
    "requests",
    "errors",
    "timeouts",
    "unavailable",
    "cache_hits",
    "cache_lookups",
    "latency_count",
    "latency_us",
    "late",
    "no_outcome",
    "rejected",
)
"""Names of the columns of `Cells.counts`; `latency_us` is a sum of microseconds, the others count requests.

`no_outcome` requests are among `requests`: their samples have neither a status nor an outcome. `late` and `rejected`
samples are in no other column.
"""
(
    REQUESTS,
    ERRORS,
    TIMEOUTS,
    UNAVAILABLE,
    CACHE_HITS,
    CACHE_LOOKUPS,
    LATENCY_COUNT,
    LATENCY_US,
    LATE,
    NO_OUTCOME,
    REJECTED,
) = range(len(COUNTS))

MEASURE_SCALE = 1_000_000
"""Custom measures are summed in millionths: a fixed-point sum is the same in any order, a floating-point sum is not."""


class Scope(NamedTuple):
    """What statistics are kept for: a variant of a flag in a service. With `flag` and `variant` empty, the whole
    service."""

    environment: str
    service: str
    flag: str = ""
    variant: str = ""

    def __str__(self) -> str:
        whole = f"{self.environment}/{self.service}"
        return f"{whole}/{self.flag}@{self.variant}" if self.flag else whole


ROWS: Final = "rows"
"""The dense section: one entry per row of the block."""


class CellColumn(NamedTuple):
    """An array of `Cells`, as its field declares it.

    `section` is the group of arrays of one length that it belongs to. `table` is the field that its values index, if
    any. `width` is the length of the second axis; None for an array of one axis. `names_row` marks the one column of a
    sparse section whose values are rows of the block.
    """

    name: str
    section: str
    table: str | None = None
    width: int | None = None
    names_row: bool = False


def _in(section: str, **spec: Any) -> Mapping[str, Any]:
    return {"section": section, **spec}


@dataclass(frozen=True, slots=True)
class Cells:
    """Statistics of `n` (scope, second) pairs; every array is int64.

    Shapes: `scope`, `second`, `offset` (n,); `counts` (n, len(COUNTS)). `scope` indexes `scopes`, `second` is s of
    [s, s + 1) in Unix seconds, `offset` the last source offset the cell contains. Sparse sections: `hist_*` (h,),
    `instance_*` (i,) with `instance_counts` (i, len(COUNTS)), `measure_*` (m,); each `*_cell` is a row of the block.
    A pair (cell, bin), (cell, instance) or (cell, measure) occurs at most once.

    The order of the arrays is that of the wire format (`streams.partials.packing`). Operations on blocks know a field
    by its metadata alone (`COLUMNS`), so a new column is one line here.
    """

    scopes: tuple[Scope, ...]
    scope: Int = field(metadata=_in(ROWS, table="scopes"))
    second: Int = field(metadata=_in(ROWS))
    offset: Int = field(metadata=_in(ROWS))
    counts: Int = field(metadata=_in(ROWS, width=len(COUNTS)))
    hist_cell: Int = field(metadata=_in("hist", names_row=True))
    hist_bin: Int = field(metadata=_in("hist"))
    hist_count: Int = field(metadata=_in("hist"))
    instances: tuple[str, ...]
    instance_cell: Int = field(metadata=_in("instance", names_row=True))
    instance_id: Int = field(metadata=_in("instance", table="instances"))
    instance_counts: Int = field(metadata=_in("instance", width=len(COUNTS)))
    measures: tuple[str, ...]
    measure_cell: Int = field(metadata=_in("measure", names_row=True))
    measure_id: Int = field(metadata=_in("measure", table="measures"))
    measure_count: Int = field(metadata=_in("measure"))
    measure_sum: Int = field(metadata=_in("measure"))

    def __len__(self) -> int:
        return len(self.second)


COLUMNS: Final = tuple(CellColumn(f.name, **f.metadata) for f in fields(Cells) if f.metadata)
"""The arrays of `Cells`, in the order of the wire format."""

TABLES: Final = tuple(f.name for f in fields(Cells) if not f.metadata)
"""The fields that columns index."""

SPARSE: Final = {column.section: column.name for column in COLUMNS if column.names_row}
"""The sections whose entries belong to rows, each with its column that names the row."""
