"""What is said of a flip from the samples after it: whether the flag took effect, and whether the service recovered.

Pure: what was before, what is now and the time are given. None is said while it is open, `unknown` where it will not
be told; neither stands for well.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from agent.state.incidents import Bake, Effect, Incident
from detectors.missing.share import MOST_MISSING
from streams.monitor.observer import Exposure, Measurement, Requests

LEFT = 20
"""One in so many of the requests may still get another variant: connections that drain, an instance that is slow."""

ENOUGH = 20
"""Requests that another variant must have had to be missed: by chance none comes of 20 once in 500 million times."""

LAST_SECONDS = 5
"""The least time looked at: shorter ones are at the mercy of a pause."""

PATIENCE = 120.0
"""Seconds beyond a deadline for which samples are waited for; then nothing can be said."""


class After(NamedTuple):
    """The last `seconds` after a flip: `rps` requests a second had another variant, `expected` would have before."""

    fallen: bool
    rps: float
    expected: float
    seconds: int


class EffectVerdict(NamedTuple):
    """What is said of the effect; `after` is None where it is unknown."""

    verdict: Effect
    after: After | None
    reason: str


class BakeVerdict(NamedTuple):
    """What is said of the metric that fired; `measured` is None where it is unknown."""

    verdict: Bake
    scope: str
    measured: Measurement | None
    reason: str


def exposure_after(before: Exposure, now: Requests) -> After | None:
    """Compare the newest seconds after a flip with what was before; None where they are too few to tell, or where the
    variant of too many requests is not known.

    As few seconds are looked at as tell enough. Expected are as many requests of other variants as before or, where the
    service has become quieter, as many as their share of its requests was: an outage is no effect.
    """
    if 100 * now.lost > MOST_MISSING * (int(now.requests.sum()) + now.lost):
        return None
    n = np.arange(1, len(now.others) + 1)
    seen, total, late = (np.cumsum(column[::-1]) for column in (now.others, now.requests, now.late))
    share = before.others * total / before.requests if before.requests else np.zeros(len(n))
    expected = np.minimum(before.others * n, share)
    # Many requests of a variant that nobody had before are enough too.
    clear = (n >= LAST_SECONDS) & (np.maximum(expected, seen) >= ENOUGH) & (100 * late <= MOST_MISSING * (total + late))
    found = np.flatnonzero(clear)
    if not len(found):
        return None
    i = int(found[0])
    seconds = i + 1
    fallen = bool(seen[i] * LEFT <= expected[i])
    return After(fallen, int(seen[i]) / seconds, float(expected[i]) / seconds, seconds)


def effect(before: Exposure | None, now: Requests, *, elapsed: float, limit: float) -> EffectVerdict | None:
    """Judge a flip `elapsed` seconds ago by its requests since; None while it is open. It has `limit` seconds."""
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
    """Compare a metric with what it was when it fired; None where the samples do not tell.

    Recovered is what no longer breaches; what still does is worse or no better. Silence is no recovery, and nor is what
    remains where too much is missing.
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
