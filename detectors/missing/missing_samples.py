"""What of a window is missing, and what can be said of it all the same.

Missing are samples that came late, that were rejected and, for what asks how requests ended, requests that do not say
it; likewise requests whose latency, cache state or measure could not be read, for what asks for it, and those whose
variant could not be read, for every variant of the flag. Up to 1 % of a window is overlooked. Of more, two things can
still be true:

- The missing are those of some instances, of which it is known who they are, and the others have `min_samples` and
  half of all samples: the others are judged, as if those instances were another service.
- The condition is true even if every missing sample was of a healthy request: then it is true, also where the others
  are well.

Else nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from detectors.arrays import Bool, Int
from detectors.cells import LATE, NO_OUTCOME, REJECTED, REQUESTS
from detectors.conditions.metric_table import Metric
from detectors.windows.ratios import RATIO

MOST_MISSING: Final = 1
"""Percent of a window's samples that may be missing; of more than that, nothing is taken for healthy."""


class Missing(NamedTuple):
    """Samples that are missing in some windows; every array is (r,).

    `late`, `rejected` and `no_outcome` (0 where the metric does not ask for it) are in the counts of the window itself;
    `unattributed` were rejected and may have been anybody's. Of `unread` requests the value of the metric's field could
    not be read, where it could of `read` ones; `variant` are those of other scopes that may have been of this variant.
    `total` are all samples, those that are missing too.
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
        """Where it is more than may be overlooked, of all or of those that have the metric's field."""
        result: Bool = (100 * self.lost > MOST_MISSING * self.total) | self.much_unread
        return result

    @property
    def much_unread(self) -> Bool:
        result: Bool = 100 * self.unread > MOST_MISSING * (self.unread + self.read)
        return result


def asks_outcome(metric: Metric) -> bool:
    """Does the metric rest on how requests ended?"""
    ratio = RATIO.get(metric)
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
    """What is missing in counts of `detectors.cells.COUNTS`, of which `column` returns one; see `asks_outcome`."""
    requests, late, rejected = column(REQUESTS), column(LATE), column(REJECTED)
    unknown = column(NO_OUTCOME) if outcome else np.zeros_like(requests)
    given = (unattributed, unread, read, variant)
    other, bad, good, theirs = (np.broadcast_to(np.asarray(n, dtype=np.int64), requests.shape) for n in given)
    return Missing(late, rejected, unknown, other, bad, good, theirs, requests + late + rejected + other + theirs)
