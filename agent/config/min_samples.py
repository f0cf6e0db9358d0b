"""`min_samples: auto`: how many samples a trigger needs, from the share of bad requests of a healthy service.

The share is the stored one if the baseline file has the metric, else a cautious assumption:

    a ratio whose bad requests are rare   0.5 % are bad, or half of the limit if that is less
    another ratio                         two thirds of what the limit allows, such as of a cache's misses
    latency_pNN                           a fifth of the requests that may be above the limit: 1 % for p95

A stored latency does not tell how many requests are above another latency, so latencies always use the assumption.
"""

from __future__ import annotations

from dataclasses import replace

from detectors.conditions.metric_table import METRIC_TABLE
from detectors.conditions.sample_size import needed_samples
from detectors.conditions.spec import TriggerSpec
from detectors.errors import SpecError

HEALTHY_BAD_SHARE = 0.005
"""Share of bad requests of a healthy service if none is stored."""


def healthy_share(spec: TriggerSpec, stored: float | None) -> float | None:
    """Return the share (0 to 1) of bad requests of a healthy service; None if the trigger does not limit such a share.

    `stored` is the metric's value in the baseline file, None if there is none.
    """
    limit, metric = spec.bad_limit, METRIC_TABLE[spec.condition.metric]
    if limit is None:
        return None
    if metric.unit != "ratio":
        return limit / 5
    if stored is not None:
        return round(1 - stored, 12) if metric.good_is_high else stored
    return min(HEALTHY_BAD_SHARE, limit / 2) if metric.bad_is_rare else limit * 2 / 3


def with_auto(spec: TriggerSpec, stored: float | None, max_window: int) -> TriggerSpec:
    """Return the trigger with the `min_samples` that it needs and windows up to `max_window` (seconds) to reach them.

    A trigger that does not limit a share of bad requests is returned unchanged. Raises SpecError if no number is
    enough.
    """
    level, limit = healthy_share(spec, stored), spec.bad_limit
    if level is None or limit is None:
        return spec
    least = needed_samples(level, limit) if level < limit or limit == 0 else None
    if least is None:
        raise SpecError(
            f"a service that is well has {level:.4g} bad requests in one, too near to the limit of {limit:.4g} to tell "
            "them apart"
        )
    return replace(spec, min_samples=least, max_window=max_window)
