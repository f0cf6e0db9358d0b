"""How strongly the bad requests of a window speak against the treated variant, compared with the control.

If both variants are equally bad, a bad request is a treated one with a probability equal to the treated share of the
requests, whatever the common rate: an outage that hits both cancels out. The statistic is the log-likelihood ratio of
the observed share of bad requests against that share, with a sign: above 0 if the treated requests are worse.

    b1, b0 bad of n1, n0 requests;  t = n1 / (n1 + n0);  s = b1 / (b1 + b0) G = b1 log(s / t) + b0 log((1 - s) / (1 -
    t)), negated if s < t

>>> round(signed_likelihood_ratio(20, 100, 1, 100), 1)    # 20 % against 1 %
10.5
>>> signed_likelihood_ratio(50, 1000, 50, 1000)           # a common outage
0.0
>>> round(signed_likelihood_ratio(1, 100, 20, 100), 1)
-10.5

Przyborowski and Wilenski: Homogeneity of results in testing samples from Poisson series. Biometrika 31 (1940).
"""

from __future__ import annotations

from math import log

PROOF = log(1000)
"""A ratio of 1000 to 1: enough to blame a variant, whichever flag changed last."""


def signed_likelihood_ratio(treated_bad: int, treated: int, control_bad: int, control: int) -> float | None:
    """Return the signed statistic in nats; None if one of the two has no requests, or if none was bad."""
    bad = treated_bad + control_bad
    if not (treated and control and bad):
        return None
    expected, seen = treated / (treated + control), treated_bad / bad
    ratio = 0.0
    for count, share, null in ((treated_bad, seen, expected), (control_bad, 1 - seen, 1 - expected)):
        if count:
            ratio += count * log(share / null)
    return ratio if seen >= expected else -ratio
