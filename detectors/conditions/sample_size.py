"""`min_samples: auto`: how many samples a window needs so that a healthy service does not breach by chance.

If each of n samples is bad with probability p, a service breaches "more than T are bad" when X > T n, with X binomial
(n, p). Few samples breach easily: one failure of 10 is 10 %. The result is the least n from which on

    P(X > T n) <= 1e-6        for it and every greater number

No constant is right for all triggers: a service that fails 0.5 % needs 900 samples at a threshold of 2 %, and 5,900 at
1 %. Every kind of trigger is reduced to the same question:

    error_rate > 2%        errors are bad, T = 2 %
    availability < 99%     unavailable requests are bad, T = 1 %: the complement of what is measured
    latency_p95 > 45s      requests above 45 s are bad, T = 5 %: the quantile is an order statistic, and it exceeds 45 s
                           when more than 5 % of the samples do

The result is exact: T n is a fraction, and the tail is summed term by term. As a function of n the tail is a saw,
because X is whole: it rises while floor(T n) is constant and drops where floor(T n) steps. Only the last n of each
tooth is therefore checked. These ends fall from tooth to tooth, except for a small tremble if 1 / T is not whole.
Bisection between 0 and log(1e6) / KL(T, p), which is enough by Chernoff's bound, finds the last tooth that is too high,
to within the tremble; a linear search finishes.

>>> needed_samples(0.005, 0.02), needed_samples(0.001, 0.02)  # error_rate > 2% of a service that fails 0.5 % or 0.1 %
(900, 250)
>>> needed_samples(0.6, 0.4, below=True)  # a hit rate < 40% of a cache that hits 60 %
139
>>> needed_samples(0.0199, 0.02) is None  # no window tells 1.99 % from 2 %
True
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from functools import lru_cache
from math import ceil, exp, lgamma, log, log1p

import numpy as np

CHANCE = 1e-6
"""A healthy service breaches once in a million evaluations: once in 11.6 days if it is evaluated every second."""

MAX_SAMPLES = 1_000_000
"""If a trigger needs more samples than this, its threshold is too close to the healthy level of its service."""


@lru_cache(maxsize=4096)
def needed_samples(healthy: float, threshold: float, *, below: bool = False, chance: float = CHANCE) -> int | None:
    """Return how many samples a trigger on a share needs; None if more than `MAX_SAMPLES`.

    `healthy` is the share (0..1) of the healthy service, `threshold` the share that the trigger compares with; with
    `below`, it breaches below the threshold. Raises ValueError for a threshold outside 0..1 or a healthy level that
    breaches by itself.
    """
    p, t = (1 - _exact(healthy), 1 - _exact(threshold)) if below else (_exact(healthy), _exact(threshold))
    if not (0 <= p <= t <= 1 and 0 < chance < 1):
        raise ValueError(f"a healthy level of {healthy:g} breaches the threshold {threshold:g}, or is outside 0..1")
    if p == 0 or t == 1:
        return 1
    if p == t:
        return None
    beyond = -log(chance) / _divergence(float(t), float(p))
    if beyond > MAX_SAMPLES:
        return None

    # Tooth k holds the n with floor(T n) = k, from ceil(k / T) to before ceil((k + 1) / T).
    def too_high(k: int) -> bool:
        return tail(ceil((k + 1) / t) - 1, float(p), k + 1) > chance

    most = ceil(beyond * float(t))
    edge = bisect_left(range(most), True, key=lambda k: not too_high(k))
    # One n more or less changes log P by about (T - p) / (1 - p), one tooth by about (T - p)^2 / (2 p (1 - p) T).
    tremble = 2 + 2 * ceil(2 * p * t / (t - p))
    k = min(edge + tremble, most)
    while k >= 0 and not too_high(k):
        k -= 1
    return max(ceil((k + 1) / t), 1)


def needed_timed_samples(healthy: float, quantile: float) -> int | None:
    """Return how many timed samples `latency_pQ > LIMIT` needs; None if more than `MAX_SAMPLES`.

    `healthy` is the share (0..1) of requests above LIMIT in the healthy service, `quantile` is 0..1. Raises ValueError
    if that share is above 1 - quantile, which breaches by itself.

    >>> needed_timed_samples(0.01, 0.95)  # p95, and a healthy 1 % above the limit
    280
    """
    return needed_samples(healthy, float(1 - _exact(quantile)))


def tail(n: int, p: float, least: int) -> float:
    """Return P(X >= least) of X binomial (n, p), 0 < p < 1, to 10 digits.

    >>> round(tail(3, 0.5, 2), 10)
    0.5
    """
    if least <= 0:
        return 1.0
    if least > n:
        return 0.0
    first = lgamma(n + 1) - lgamma(least + 1) - lgamma(n - least + 1) + least * log(p) + (n - least) * log1p(-p)
    # Each term is the one before times (n - i) p / ((i + 1) (1 - p)), which falls: the terms left out sum to less than
    # a geometric series with the first such ratio, if that is below 1.
    ratio = (n - least) * p / ((least + 1) * (1 - p))
    terms = n - least if ratio >= 1 or ratio == 0 else min(n - least, ceil(log(1e-14 * (1 - ratio)) / log(ratio)))
    i = np.arange(least, least + terms, dtype=np.float64)
    steps = np.log((n - i) / (i + 1)) + (log(p) - log1p(-p))
    # If p is near 1, the first term is so small that the others, as multiples of it, overflow.
    return min(exp(first) + float(np.exp(first + np.cumsum(steps)).sum()), 1.0)


def _exact(share: float) -> Fraction:
    """Return the decimal as it was written: 0.07 is 7/100, not the nearest binary number."""
    return Fraction(repr(float(share)))


def _divergence(t: float, p: float) -> float:
    return t * log(t / p) + (1 - t) * log((1 - t) / (1 - p))
