"""`min_samples: auto`: how many samples a trigger wants, from the level at which its service is well.

The level is the stored one where the baseline file has the metric; else it is taken to be a cautious one:

    a ratio whose bad requests are rare   0.5 % are bad, or half of the limit where that is less
    another ratio                         two thirds of what the limit allows, such as of a cache's misses
    latency_pNN                           a fifth of the requests that may be above the limit: 1 % for p95

A stored latency does not say how many requests are above another one, so of latencies the level is always the last.
"""

from __future__ import annotations

from dataclasses import replace

from detectors.conditions.metric_table import METRIC_TABLE
from detectors.conditions.sample_size import needed_samples
from detectors.conditions.spec import TriggerSpec
from detectors.errors import SpecError

BAD = 0.005
"""Share of bad requests of a service that is well, where nothing is stored."""


def healthy(spec: TriggerSpec, stored: float | None) -> float | None:
    """The share (0..1) of bad requests when the service is well; None where the trigger is no limit on such a share.

    `stored` is the metric's value in the baseline file, None where it has none.
    """
    limit, metric = spec.bad_limit, METRIC_TABLE[spec.condition.metric]
    if limit is None:
        return None
    if metric.unit != "ratio":
        return limit / 5
    if stored is not None:
        return round(1 - stored, 12) if metric.good_is_high else stored
    return min(BAD, limit / 2) if metric.bad_is_rare else limit * 2 / 3


def with_auto(spec: TriggerSpec, stored: float | None, max_window: int) -> TriggerSpec:
    """The trigger with as many samples as it wants and windows up to `max_window` to find them in; as it is where
    it is no limit on the share of bad requests. Raises SpecError where no number is enough."""
    level, limit = healthy(spec, stored), spec.bad_limit
    if level is None or limit is None:
        return spec
    least = needed_samples(level, limit) if level < limit or limit == 0 else None
    if least is None:
        raise SpecError(
            f"a service that is well has {level:.4g} bad requests in one, too near to the limit of {limit:.4g} to tell "
            "them apart"
        )
    return replace(spec, min_samples=least, max_window=max_window)
