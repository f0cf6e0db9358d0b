"""Rules of the drift watch, with river itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.errors import DriftUnavailable
from streams.monitor.drift import Drift, DriftConfig, DriftWatch

HOUR = 3600
FLAT = np.full((24, 1), 0.05)
methods = pytest.mark.parametrize("method", ["page_hinkley", "adwin"])
Method = Literal["page_hinkley", "adwin"]


def watch(
    rates: NDArray[np.float64], method: Method, baseline: NDArray[np.float64] = FLAT, requests: int = 100, seed: int = 1
) -> list[Drift]:
    """The drifts of one row whose rate in each second is `rates` (seconds,)."""
    rng = np.random.default_rng(seed)
    watched = DriftWatch(baseline, DriftConfig(method=method))
    return [
        drift
        for second, rate in enumerate(rates)
        for drift in watched.update(second, rng.binomial([requests], rate), np.array([requests]))
    ]


def steps(*parts: tuple[float, int]) -> NDArray[np.float64]:
    return np.concatenate([np.full(seconds, rate) for rate, seconds in parts])


@methods
def test_a_change_for_the_worse_is_told_once_and_soon(method: Method) -> None:
    (drift,) = watch(steps((0.05, 900), (0.1, 600)), method)
    assert 900 <= drift.second < 960
    assert drift.worse
    assert drift.residual > 0.5
    assert abs(drift.before) < 0.3


@methods
def test_an_improvement_is_never_told_as_harm(method: Method) -> None:
    (drift,) = watch(steps((0.05, 900), (0.01, 600)), method)
    assert not drift.worse
    assert drift.residual < drift.before


@methods
def test_a_recovery_is_told_as_an_improvement(method: Method) -> None:
    drifts = watch(steps((0.05, 900), (0.15, 600), (0.05, 600)), method)
    assert [drift.worse for drift in drifts] == [True, False]


@methods
def test_a_steady_service_does_not_drift(method: Method) -> None:
    assert not watch(steps((0.05, 20_000)), method)


@methods
def test_the_habit_of_the_day_is_no_drift(method: Method) -> None:
    habit = np.where(np.arange(24) % 2, 0.02, 0.08)[:, np.newaxis]
    rates = habit[np.arange(6 * HOUR) // HOUR, 0]
    assert not watch(rates, method, baseline=habit)
    assert watch(rates, method)


@methods
def test_the_same_ratio_of_fewer_requests_is_less_of_a_drift(method: Method) -> None:
    rates = steps((0.05, 900), (0.08, 300))
    assert watch(rates, method, requests=400)
    assert not watch(rates, method, requests=4)


@methods
def test_three_bad_seconds_are_no_drift(method: Method) -> None:
    assert not watch(steps((0.05, 900), (0.9, 3), (0.05, 900)), method)


@methods
def test_silence_is_no_drift_and_rows_do_not_touch_each_other(method: Method) -> None:
    rng = np.random.default_rng(2)
    watched = DriftWatch(np.repeat(FLAT, 3, axis=1), DriftConfig(method=method))
    drifts = []
    for second in range(1500):
        requests = np.array([100, 0, 100])
        bad = rng.binomial(requests, [0.05, 0.05, 0.05 if second < 900 else 0.15])
        drifts += watched.update(second, bad, requests)
    assert [drift.row for drift in drifts] == [2]


def test_a_baseline_that_is_none_is_refused() -> None:
    for wrong in (np.zeros((23, 1)), np.full((24, 1), 1.1), np.zeros(24)):
        with pytest.raises(ValueError, match=r"shape \(24, rows\)"):
            DriftWatch(wrong, DriftConfig())


def test_river_is_imported_only_where_a_watch_is_made() -> None:
    code = "import sys, streams.monitor.drift; sys.exit('river' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_river_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(DriftUnavailable, match=r"flipback\[drift\]"):
        DriftWatch(FLAT, DriftConfig())
