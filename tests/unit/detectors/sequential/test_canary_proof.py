"""The proof that a canary is worse: none is false, whatever hits both arms, and a true one comes soon."""

from __future__ import annotations

from math import comb, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.sequential.canary_proof import CanaryProof, CanaryProofConfig
from tests.bench.detect import divergence

CONFIG = CanaryProofConfig()
RATE, SHARE, HEALTHY = 50, 0.1, 0.005


def array(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def e(detector: CanaryProof) -> float:
    return float(np.exp(detector.evidence[0]))


def first_proofs(canary: float, control: float, runs: int, seconds: int) -> NDArray[np.float64]:
    """Return the seconds to the proof, nan if there is none."""
    rng = np.random.default_rng(5)
    detector, found = CanaryProof(runs, CONFIG), np.full(runs, np.nan)
    for second in range(1, seconds + 1):
        bad = rng.binomial(rng.poisson(RATE * SHARE, runs), canary)
        others = rng.binomial(rng.poisson(RATE * (1 - SHARE), runs), control)
        found[detector.update(second, bad, others, SHARE) & np.isnan(found)] = second
        if not np.isnan(found).any():
            break
    return found


@given(
    st.integers(1, 4), st.integers(1, 4), st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.floats(0, 1)
)  # fmt: skip
def test_under_the_null_the_mean_of_the_next_evidence_is_that_of_now_at_most(
    before: int, bad: int, share: float, later: float, better: float
) -> None:
    # Each of `bad` bad requests is the canary's with probability theta: its share if both fail alike, and less if the
    # canary fails less. The common rate does not occur in it.
    theta = later * better / (later * better + 1 - later)
    mean = 0.0
    for x in range(bad + 1):
        detector = CanaryProof(1, CONFIG)
        detector.update(0, array(1), array(before), share)
        now = e(detector)
        detector.update(1, array(x), array(bad - x), later)
        mean += comb(bad, x) * theta**x * (1 - theta) ** (bad - x) * e(detector)
    assert mean <= now * (1 + 1e-9)


@pytest.mark.parametrize("rate", [HEALTHY, 0.05])
def test_false_proofs_are_rarer_than_alpha_in_an_outage_of_both_too(rate: float) -> None:
    proofs = first_proofs(rate, rate, runs=4000, seconds=300)
    assert np.isfinite(proofs).mean() <= CONFIG.alpha


def test_an_outage_of_both_arms_after_quiet_minutes_proves_nothing() -> None:
    detector = CanaryProof(1, CONFIG)
    for second in range(300):
        proven = detector.update(second, array(0), array(0), SHARE)
    for second in range(300, 600):
        proven = detector.update(second, array(4), array(36), SHARE)
    assert not proven[0]


@pytest.mark.parametrize(("p", "limit"), [(0.05, 34.0), (0.2, 5.3)])
def test_a_worse_canary_is_proven_in_the_promised_time_and_near_the_bound(p: float, limit: float) -> None:
    delay = first_proofs(p, HEALTHY, runs=2000, seconds=600)
    mean = SHARE * p + (1 - SHARE) * HEALTHY
    bound = log(1 / CONFIG.alpha) / (RATE * mean * divergence(SHARE * p / mean, SHARE))
    # A second counts at its end: on average half a second after its evidence.
    assert delay.mean() <= 1.3 * bound + 0.5
    assert delay.mean() - 0.5 <= limit


def test_a_canary_that_is_better_is_never_proven() -> None:
    detector = CanaryProof(1, CONFIG)
    for second in range(500):
        proven = detector.update(second, array(0), array(5), SHARE)
    assert not proven[0]
    assert detector.evidence[0] < -50


def test_four_bad_requests_of_a_tenth_prove_it_when_the_control_has_none() -> None:
    # (w / (1 - rho + w rho))^4: at most 10^4; for three requests at most 10^3, which is not reached.
    detector = CanaryProof(1, CONFIG)
    assert [bool(detector.update(s, array(1), array(0), SHARE)[0]) for s in range(4)] == [False, False, False, True]


def test_evidence_is_kept_when_the_percentage_is_raised() -> None:
    raised, apart = CanaryProof(1, CONFIG), CanaryProof(1, CONFIG)
    for second in range(3):
        raised.update(second, array(1), array(0), 0.1)
    assert not raised.update(3, array(1), array(0), 0.5)[0]
    for second in range(4, 30):
        proven = raised.update(second, array(3), array(1), 0.5)
        apart.update(second, array(3), array(1), 0.5)
        assert raised.evidence[0] > apart.evidence[0]
    assert proven[0]


def test_what_is_proven_stays_proven_until_the_row_is_reset() -> None:
    detector = CanaryProof(2, CONFIG)
    for second in range(9):
        detector.update(second, array(1, 1), array(0, 0), SHARE)
    for second in range(9, 500):
        proven = detector.update(second, array(0, 0), array(9, 9), SHARE)
    assert proven.tolist() == [True, True]
    detector.reset(array(1))
    assert detector.update(500, array(0, 0), array(0, 0), SHARE).tolist() == [True, False]
    assert detector.evidence[1] == 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_is_learnt_of_a_share_of_nothing_or_of_all(share: float) -> None:
    detector = CanaryProof(1, CONFIG)
    for second in range(100):
        assert not detector.update(second, array(5), array(1 - int(share)), share)[0]
    assert detector.evidence[0] == pytest.approx(0)


def test_a_share_that_is_none_is_refused() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            CanaryProof(1, CONFIG).update(0, array(0), array(0), share)


def test_an_alpha_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        CanaryProof(1, CanaryProofConfig(alpha=0.0))
