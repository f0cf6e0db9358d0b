"""The samples that a window lacks, and the rules for a verdict without them.

A sample is missing if it came late or was rejected. For a metric that depends on how requests ended, requests without
an outcome are missing too; for one that needs the latency, cache state or measure, requests whose value could not be
read; for every variant of a flag, requests whose variant could not be read. Up to 1 % of a window is tolerated. If more
is missing, there is a verdict in two cases:

- All that is missing belongs to known instances, and the other instances have `min_samples` and half of all samples:
  the others are judged, as if the known instances were another service.
- The condition is true even if every missing sample was a healthy request: then it is true, even if the others are
  well.

Else the verdict is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from detectors.arrays import Bool, Int
from detectors.cells import LATE, NO_OUTCOME, REJECTED, REQUESTS
from detectors.conditions.metric_table import Metric
from detectors.windows.ratios import RATIO_PARTS

MOST_MISSING: Final = 1
"""Percent of a window's samples that may be missing; with more, a window is not called healthy."""


class Missing(NamedTuple):
    """Samples that are missing in some windows; every array is (r,).

    `late`, `rejected` and `no_outcome` (0 if the metric does not need the outcome) are counts of the window itself.
    `unattributed` samples were rejected and may belong to any scope. The value of the metric's field could not be read
    in `unread` requests and could in `read` ones. `variant` counts requests of other scopes that may belong to this
    variant. `total` counts all samples, missing ones included.
    """

    late: Int
    rejected: Int
    no_outcome: Int
    unattributed: Int
    unread: Int
    read: Int
    variant: Int
    total: Int

    @classmethod
    def nothing(cls, n: int) -> Missing:
        return cls(*np.zeros((len(cls._fields), n), dtype=np.int64))

    @property
    def lost(self) -> Int:
        return self.late + self.rejected + self.no_outcome + self.unattributed + self.unread + self.variant

    @property
    def much(self) -> Bool:
        """Where more is missing than tolerated, of all samples or of those that have the metric's field."""
        result: Bool = (100 * self.lost > MOST_MISSING * self.total) | self.much_unread
        return result

    @property
    def much_unread(self) -> Bool:
        result: Bool = 100 * self.unread > MOST_MISSING * (self.unread + self.read)
        return result


def asks_outcome(metric: Metric) -> bool:
    """Return whether the metric depends on how requests ended."""
    ratio = RATIO_PARTS.get(metric)
    return ratio is not None and ratio.unknown is not None


def missing_of(
    column: Callable[[int], Int],
    *,
    outcome: bool,
    unattributed: Int | int = 0,
    unread: Int | int = 0,
    read: Int | int = 0,
    variant: Int | int = 0,
) -> Missing:
    """Return what is missing; `column` returns a column of `detectors.cells.COUNTS`, and `outcome` is
    `asks_outcome`."""
    requests, late, rejected = column(REQUESTS), column(LATE), column(REJECTED)
    unknown = column(NO_OUTCOME) if outcome else np.zeros_like(requests)
    given = (unattributed, unread, read, variant)
    other, bad, good, theirs = (np.broadcast_to(np.asarray(n, dtype=np.int64), requests.shape) for n in given)
    return Missing(late, rejected, unknown, other, bad, good, theirs, requests + late + rejected + other + theirs)
