"""The learnt rate: what it learns, what it must not learn, and that bursts stay below it."""

from __future__ import annotations

from math import exp, log, sqrt
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.sequential.healthy_rate import HealthyRate, HealthyRateConfig

DAY = 1440
THRESHOLD = 0.02
CONFIG = HealthyRateConfig()


def flag(*values: bool) -> NDArray[np.bool_]:
    return np.array(values)


def fed(minutes: list[tuple[int, int]], pending: range = range(0), firing: range = range(0)) -> HealthyRate:
    """Return one row that was fed (bad, requests) of each minute, and enough further minutes to admit them all."""
    healthy = HealthyRate(1, CONFIG)
    for minute, (bad, requests) in enumerate([*minutes, *[(0, 0)] * (CONFIG.quarantine + 1)]):
        healthy.update(
            60 * minute, np.array([bad]), np.array([requests]), flag(minute in pending), flag(minute in firing)
        )
    return healthy


def one(values: NDArray[np.float64]) -> float:
    return float(values[0])


def test_mean_and_variance_are_the_moments_without_what_chance_scatters() -> None:
    rng = np.random.default_rng(1)
    minutes = [(int(rng.integers(0, n // 60)), int(n)) for n in rng.integers(100, 900, 200)]
    healthy = fed(minutes)
    k, total = len(minutes), sum(n for _, n in minutes)
    mean = sum(x for x, _ in minutes) / total
    scatter = sum(n * (x / n - mean) ** 2 for x, n in minutes)
    variance = (scatter - (k - 1) * mean * (1 - mean)) / (total - sum(n * n for _, n in minutes) / total - (k - 1))
    assert one(healthy.mean) == pytest.approx(mean)
    assert one(healthy.deviation) == pytest.approx(sqrt(variance))
    spread = log(1 + variance / mean**2)
    quantile = mean * exp(NormalDist().inv_cdf(1 - 1e-5) * sqrt(spread) - spread / 2)
    assert one(healthy.rate(0.0)) == pytest.approx(quantile)
    assert quantile < CONFIG.cap


def test_the_parameters_of_a_beta_binomial_are_found_again() -> None:
    rng = np.random.default_rng(2)
    rows, a, b = 50, 4.0, 796.0
    quiet = np.zeros(rows, dtype=np.bool_)
    healthy = HealthyRate(rows, CONFIG)
    for minute in range(DAY):
        requests = rng.poisson(3000, rows)
        healthy.update(60 * minute, rng.binomial(requests, rng.beta(a, b, rows)), requests, quiet, quiet)
    assert healthy.mean.mean() == pytest.approx(a / (a + b), rel=0.01)
    assert healthy.deviation.mean() == pytest.approx(sqrt(a * b / ((a + b) ** 2 * (a + b + 1))), rel=0.02)


def test_a_steady_service_keeps_the_threshold_of_its_trigger() -> None:
    rng = np.random.default_rng(3)
    healthy = fed([(int(rng.binomial(3000, 0.005)), 3000) for _ in range(300)])
    assert one(healthy.deviation) < 0.0005
    assert one(healthy.rate(THRESHOLD)) == THRESHOLD


def test_until_an_hour_is_known_the_rate_stands_at_the_cap() -> None:
    assert one(fed([(15, 3000)] * 59).rate(THRESHOLD)) == CONFIG.cap
    assert one(fed([(15, 3000)] * 60).rate(THRESHOLD)) == THRESHOLD


def test_the_rate_never_goes_above_the_cap_but_for_a_threshold_that_does() -> None:
    healthy = fed([(1500, 3000), (0, 3000)] * 100)
    assert one(healthy.rate(THRESHOLD)) == CONFIG.cap
    assert one(healthy.rate(0.6)) == 0.6


def test_when_a_trigger_fires_what_waits_in_quarantine_is_thrown_away() -> None:
    good = [(15, 3000)] * 100
    climb = [(60, 3000), (300, 3000), (900, 3000)]
    assert one(fed([*good, *climb, (1500, 3000), *good]).mean) > 0.009
    healthy = fed([*good, *climb, (1500, 3000), *good], firing=range(103, 104))
    assert one(healthy.mean) == pytest.approx(0.005)
    late = fed([*good, *climb, *[(15, 3000)] * 5, (1500, 3000), *good], firing=range(108, 109))
    assert one(late.mean) > 0.006


def test_a_burst_that_was_pending_and_passed_is_healthy_and_counts() -> None:
    good, burst = [(15, 3000)] * 100, [(90, 3000)] * 2
    assert one(fed([*good, *burst, *good], pending=range(100, 102)).mean) > 0.0051


def test_what_leaves_the_quarantine_while_a_trigger_is_pending_does_not_count() -> None:
    good = [(15, 3000)] * 100
    climb = [(300, 3000)] * 30
    assert one(fed([*good, *climb, *good], pending=range(100, 140)).mean) == pytest.approx(0.005)


def test_what_is_a_day_old_is_forgotten() -> None:
    bad_hour = [(240, 3000)] * 60
    assert one(fed([*bad_hour, *[(15, 3000)] * (22 * 60)]).mean) > 0.006
    assert one(fed([*bad_hour, *[(15, 3000)] * (24 * 60)]).mean) == pytest.approx(0.005)


def test_after_a_day_of_silence_nothing_is_known() -> None:
    healthy = fed([(15, 3000)] * 300)
    healthy.update(60 * (300 + DAY), np.array([0]), np.array([0]), flag(False), flag(False))
    healthy.update(60 * (301 + DAY), np.array([0]), np.array([0]), flag(False), flag(False))
    assert one(healthy.rate(THRESHOLD)) == CONFIG.cap


def test_the_rate_of_a_second_does_not_rest_on_its_own_minute() -> None:
    healthy = fed([(15, 3000)] * 100)
    before = one(healthy.rate(0.0))
    for second in range(6400, 6419):
        healthy.update(second, np.array([50]), np.array([50]), flag(False), flag(False))
        assert one(healthy.rate(0.0)) == before


@pytest.mark.parametrize(("kind", "cv"), [("gamma", 0.5), ("gamma", 1.0), ("log-normal", 0.5), ("log-normal", 1.0)])
@pytest.mark.parametrize("rate", [50, 5000])
def test_a_bursty_service_exceeds_what_was_learnt_in_one_day_once_in_two_weeks_at_most(
    kind: str, cv: float, rate: int
) -> None:
    rng = np.random.default_rng(4)
    rows, spread = 60, log(1 + cv * cv)
    quiet = np.zeros(rows, dtype=np.bool_)

    def rates(size: tuple[int, ...]) -> NDArray[np.float64]:
        if kind == "gamma":
            return 0.005 * rng.gamma(cv**-2, cv**2, size)
        return 0.005 * np.exp(rng.normal(-spread / 2, sqrt(spread), size))

    healthy = HealthyRate(rows, CONFIG)
    for minute in range(DAY):
        requests = rng.poisson(60 * rate, rows)
        bad = rng.binomial(requests, np.minimum(rates((rows,)), 1))
        healthy.update(60 * minute, bad, requests, quiet, quiet)
    above = rates((20_000, rows)) > healthy.rate(THRESHOLD)
    assert above.mean() * 14 * DAY <= 1


def test_a_cap_a_tail_or_a_quarantine_that_is_none_is_refused() -> None:
    for wrong in (HealthyRateConfig(cap=1.0), HealthyRateConfig(tail=0.0), HealthyRateConfig(quarantine=0)):
        with pytest.raises(ValueError, match=r"between 0 and 1|at least 1 minute"):
            HealthyRate(1, wrong)
