"""Judge a flip by the samples after it: did the flag take effect, and did the service recover?

Pure: the state before, the state now and the time are arguments. A verdict is None while it is open, and `unknown` if
the samples will not decide it. Neither means well.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from agent.state.incidents import Bake, Effect, Incident
from detectors.missing.missing_samples import MOST_MISSING
from streams.monitor.observer import Exposure, Measurement, Requests

LEFT = 20
"""One in so many requests may still get another variant: connections that drain, an instance that is slow."""

ENOUGH = 20
"""Expected requests of other variants from which their absence counts: if 20 are expected, none come by chance once in
500 million times."""

LAST_SECONDS = 5
"""The shortest time that is compared, in seconds: in a shorter one a pause looks like an effect."""

PATIENCE = 120.0
"""Seconds after a deadline for which samples are awaited; after that the verdict is unknown."""


class After(NamedTuple):
    """The newest `seconds` after a flip.

    `rps` requests a second had another variant than the safe one; before the flip `expected` would have. `fallen`: so
    few are left that the flip took effect.
    """

    fallen: bool
    rps: float
    expected: float
    seconds: int


class EffectVerdict(NamedTuple):
    """The verdict on the effect; `after` is None if it is unknown."""

    verdict: Effect
    after: After | None
    reason: str


class BakeVerdict(NamedTuple):
    """The verdict on the metric that fired; `measured` is None if it is unknown."""

    verdict: Bake
    scope: str
    measured: Measurement | None
    reason: str


def exposure_after(before: Exposure, now: Requests) -> After | None:
    """Compare the newest seconds after a flip with the time before. Return None if they have too few requests, or if
    the variant of too many requests is not known.

    The shortest span that has enough requests is compared. Expected are as many requests of other variants as before
    or, if the service has become quieter, their former share of its requests: an outage is no effect.
    """
    if 100 * now.lost > MOST_MISSING * (int(now.requests.sum()) + now.lost):
        return None
    n = np.arange(1, len(now.others) + 1)
    seen, total, late = (np.cumsum(column[::-1]) for column in (now.others, now.requests, now.late))
    share = before.others * total / before.requests if before.requests else np.zeros(len(n))
    expected = np.minimum(before.others * n, share)
    # Many requests of a variant that had none before are enough too.
    clear = (n >= LAST_SECONDS) & (np.maximum(expected, seen) >= ENOUGH) & (100 * late <= MOST_MISSING * (total + late))
    found = np.flatnonzero(clear)
    if not len(found):
        return None
    i = int(found[0])
    seconds = i + 1
    fallen = bool(seen[i] * LEFT <= expected[i])
    return After(fallen, int(seen[i]) / seconds, float(expected[i]) / seconds, seconds)


def effect(before: Exposure | None, now: Requests, *, elapsed: float, limit: float) -> EffectVerdict | None:
    """Judge a flip that was `elapsed` seconds ago by the requests since; None while the verdict is open.

    The flip has `limit` seconds to take effect.
    """
    after = exposure_after(before or Exposure(0.0, 0.0, 0.0), now)
    if before is not None and after is not None and after.fallen:
        return EffectVerdict("effective", after, "")
    if elapsed < limit:
        return None
    if after is not None and before is not None:
        return EffectVerdict(
            "ineffective",
            after,
            f"other variants still have {after.rps:.3g} requests/s, expected were {after.expected / LEFT:.3g} at most; "
            f"{before.others:.3g} before",
        )
    if before is None:
        return EffectVerdict("unknown", None, "it is not known how many requests had which variant before")
    if before.variants == 0 and not now.variants.any():
        return EffectVerdict("unknown", None, "the samples carry no variant of the flag")
    if before.others == 0 and not now.others.any():
        return EffectVerdict("unknown", None, "no request had another variant before either")
    if elapsed < limit + PATIENCE:
        return None
    requests, late = int(now.requests.sum()), int(now.late.sum())
    if requests == now.lost == 0:
        return EffectVerdict("unknown", None, "the service is silent")
    if 100 * late > MOST_MISSING * (requests + late):
        return EffectVerdict("unknown", None, f"of {requests + late} samples {late} came too late to be counted")
    if 100 * now.lost > MOST_MISSING * (requests + now.lost):
        what = "were rejected, or their variant could not be read"
        return EffectVerdict("unknown", None, f"of {requests + now.lost} samples {now.lost} {what}")
    return EffectVerdict(
        "unknown", None, f"too little traffic: {ENOUGH} requests of other variants are not expected in a minute"
    )


def bake(incident: Incident, now: Measurement, min_samples: int) -> Bake | None:
    """Compare a metric with its value when the trigger fired; None if the samples do not decide.

    A metric that no longer breaches is recovered; one that does is worse or no better. Silence is no recovery, and
    neither is the rest of the samples if too many are missing.
    """
    was, threshold = incident.value, incident.threshold
    if was is None or threshold is None or math.isnan(now.value):
        return None
    greater = incident.op == ">"
    breach = now.value > threshold if greater else now.value < threshold
    late = 100 * now.late > MOST_MISSING * (now.requests + now.late)
    if late or now.lacking or now.samples < min_samples or (now.samples == 0 and not breach):
        return None
    if not breach:
        return "recovered"
    return "worse" if (now.value > was if greater else now.value < was) else "no-better"
