"""`min_samples: auto`: how many samples a trigger needs, and the window that has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.min_samples import healthy_share, with_auto
from detectors.conditions.sample_size import CHANCE, tail
from detectors.conditions.spec import TriggerSpec, longest_lookback
from detectors.errors import SpecError
from tests.support.cells import Cell
from tests.unit.detectors.triggers.test_evaluator import SERVICE, Bench, counts, one, spec


def auto(when: str, stored: float | None = None) -> TriggerSpec:
    return with_auto(spec(when, min_samples=30), stored, 600)


@pytest.mark.parametrize(
    ("when", "stored", "level", "samples"),
    [
        ("error_rate > 2% for 2m", None, 0.005, 900),
        ("error_rate > 2% for 2m", 0.001, 0.001, 250),
        ("timeout_rate > 0.5% for 2m", None, 0.0025, 11800),
        ("availability < 99% for 30s", None, 0.005, 5900),
        ("availability < 99% for 30s", 0.999, 0.001, 800),
        ("cache_hit_rate < 40% for 5m", None, 0.4, 139),
        ("cache_hit_rate < 40% for 5m", 0.5, 0.5, 564),
        ("latency_p95 > 45s for 1m", None, 0.01, 280),
        ("latency_p95 > 45s for 1m", 800.0, 0.01, 280),
    ],
)
def test_the_number_follows_from_the_healthy_level(when: str, stored: float | None, level: float, samples: int) -> None:
    found = auto(when, stored)
    assert healthy_share(found, stored) == pytest.approx(level)
    assert found.min_samples == samples
    assert found.bad_limit is not None
    beyond = int(found.bad_limit * samples + 1e-9) + 1
    assert tail(samples, level, beyond) <= CHANCE


@pytest.mark.parametrize(
    "when",
    ["throughput < 1/s for 1m", "latency_mean > 1s for 1m", "measure.score < 0.8 for 1m", "error_rate@on > 3x control"],
)
def test_what_is_no_fixed_limit_on_bad_requests_keeps_its_number_and_window(when: str) -> None:
    found = auto(when)
    assert (found.min_samples, found.max_window, len(found.windows)) == (30, None, 1)


def test_a_multiple_of_the_baseline_is_told_from_the_baseline() -> None:
    found = with_auto(spec("error_rate > 3x baseline for 2m", baseline=0.01), 0.01, 600)
    assert found.bad_limit == pytest.approx(0.03)
    assert (healthy_share(found, 0.01), found.max_window) == (0.01, 600)


@pytest.mark.parametrize(("stored", "what"), [(0.03, "0.03"), (0.02, "0.02"), (0.0199, "0.0199")])
def test_a_limit_too_near_to_the_healthy_level_is_refused(stored: float, what: str) -> None:
    with pytest.raises(SpecError, match=f"{what} bad requests in one, too near to the limit of 0.02"):
        auto("error_rate > 2% for 2m", stored)


def test_windows_double_up_to_the_longest() -> None:
    assert auto("error_rate > 2% over 60s").windows == (60, 120, 240, 480, 600)
    assert replace(auto("error_rate > 2% over 60s"), max_window=480).windows == (60, 120, 240, 480)
    assert replace(auto("error_rate > 2% over 60s"), max_window=60).windows == (60,)
    assert auto("error_rate > 2% over 15m").windows == (900,)
    assert longest_lookback([auto("error_rate > 2% over 60s for 2m")]) == 600 + 120


def test_a_window_with_too_few_samples_gives_way_to_the_shortest_that_has_enough() -> None:
    bench = Bench(replace(spec("error_rate > 10% over 5s", min_samples=100), max_window=40))
    found = [bench.see((SERVICE, counts(10, 2))) for _ in range(20)]
    assert [one(e)[0] for e in found] == ["unknown"] * 9 + ["firing"] * 11
    assert one(found[8])[1] == "samples 90 < min_samples 100"
    assert (found[-1].own.window[0], found[-1].samples[0]) == (10, 100)
    assert one(found[-1])[1] == "20 % > 10 % over 10 s"
    busy = [bench.see((SERVICE, counts(20))) for _ in range(5)][-1]
    assert (busy.own.window[0], one(busy)) == (5, ("ok", ""))


def test_a_longer_window_does_not_reach_back_before_the_flags_version() -> None:
    """Else failures of the previous version would roll the new version back as long as the window has them."""
    bench = Bench(replace(spec("error_rate > 10% over 5s for 5s", min_samples=100), max_window=40))
    for _ in range(20):
        bench.see((SERVICE, counts(10, 5)))
    bench.evaluator.begin_version("production", "new", bench.second)
    found = [bench.see((SERVICE, counts(10))) for _ in range(30)]
    assert {one(e)[0] for e in found[5:9]} == {"unknown"}
    # From its tenth second the new version has enough samples of its own.
    assert {one(e) for e in found[9:]} == {("ok", "")}
    assert all(e.own.window[0] <= n + 1 for n, e in enumerate(found) if n >= 5)


def test_another_flags_version_shortens_no_window() -> None:
    bench = Bench(replace(spec("error_rate > 10% over 5s", min_samples=100), max_window=40))
    for _ in range(20):
        bench.see((SERVICE, counts(10, 2)))
    bench.evaluator.begin_version("production", "another", bench.second)
    assert one(bench.see((SERVICE, counts(10, 2)))) == ("firing", "20 % > 10 % over 10 s")


def test_silence_is_not_filled_with_what_was_before_it() -> None:
    bench = Bench(replace(spec("error_rate > 10% over 5s", min_samples=30), max_window=60))
    for _ in range(30):
        bench.see((SERVICE, counts(20, 10)))
    silent = [one(bench.see()) for _ in range(6)]
    assert [state for state, _ in silent] == ["firing"] * 4 + ["unknown"] * 2
    assert silent[-1][1].startswith("none since ")


def test_a_quantile_is_that_of_its_widened_window() -> None:
    bench = Bench(replace(spec("latency_p50 > 1ms over 2s", min_samples=6), max_window=8))
    fast, slow = 100, 200
    for bin_ in (slow, slow, slow, fast, fast):
        found = bench.see((SERVICE, Cell({"requests": 2, "latency_count": 2}, {bin_: 2})))
    assert (found.own.window[0], found.samples[0], one(found)[0]) == (4, 8, "ok")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40),
    st.integers(1, 40),
    st.sampled_from([2, 3, 5]),
    st.sampled_from([0, 4, 12, 20]),
)
def test_the_window_is_that_of_a_plain_loop(series: list[tuple[int, int]], least: int, over: int, longest: int) -> None:
    rule = replace(spec(f"error_rate > 20% over {over}s", min_samples=least), max_window=longest)
    bench = Bench(rule)
    for i, (requests, errors) in enumerate(series):
        found = bench.see((SERVICE, counts(requests, min(errors, requests))))
        lengths = [over]
        while lengths[-1] * 2 < longest:
            lengths.append(lengths[-1] * 2)
        if longest > lengths[-1]:
            lengths.append(longest)
        expected = "unknown"
        for length in lengths:
            inside = series[max(0, i + 1 - length) : i + 1]
            n = sum(r for r, _ in inside)
            if n == 0 and length == over:
                break
            if n >= least:
                bad = sum(min(e, r) for r, e in inside)
                expected = "firing" if bad * 5 > n else "ok"
                assert found.own.window[0] == length
                break
        assert one(found)[0] == expected
