"""`flipback simulate` gives the figures worked out by hand, and the same seed gives the same figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.offline.simulate import Simulated, bad_limit, false_alarms, first_seen, simulate
from agent.offline.simulate_plot import page
from agent.offline.simulated_service import Scenario
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from tests.unit.agent.cli.test_keys_and_restore import CONFIG, run


def spec(when: str, control: str | None = None) -> TriggerSpec:
    condition = parse(when)
    return TriggerSpec(
        name="t",
        flag="f",
        environment="production",
        service="shop",
        condition=condition,
        safe_variant="off",
        control_variant=control,
        min_samples=condition.default_min_samples,
    )


def simulated(
    when: str, *, bad: float | None = None, rate: float = 200.0, split: float = 1.0, days: float = 0
) -> Simulated:
    (result,) = simulate([spec(when)], rate=rate, split=split, healthy=0.0, bad=bad, days=days, seed=1)
    return result


@pytest.fixture
def one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate no stages beside the split that is asked for."""
    monkeypatch.setattr("agent.offline.simulate.STAGES", ())


def delay(result: Simulated, split: float) -> tuple[float | None, float | None, float]:
    one = next(one for one in result.delays if one.split == split)
    return one.p50, one.p95, one.missed


@pytest.mark.usefixtures("one_split")
def test_an_outage_is_seen_when_the_window_crosses_the_limit_and_the_hold_has_passed() -> None:
    # Everything fails: 1/10 of the window after 1 s, 2/10 after 2 s, which is not above 20.5 %; then 5 s of hold.
    assert delay(simulated("error_rate > 20.5% over 10s for 5s", bad=1.0), 1.0) == (8, 8, 0)


@pytest.mark.usefixtures("one_split")
def test_a_regression_that_stays_under_the_limit_is_missed() -> None:
    assert delay(simulated("error_rate > 50% over 10s for 5s", bad=0.2), 1.0) == (None, None, 1)


def test_a_smaller_share_of_requests_hides_the_regression_from_a_trigger_of_the_whole_service() -> None:
    result = simulated("error_rate > 20% over 10s for 5s", bad=0.5)
    assert delay(result, 1.0)[2] == 0
    assert delay(result, 0.1)[2] == 1


def test_a_trigger_of_the_variant_sees_it_at_any_share() -> None:
    result = simulated("error_rate@on > 20% over 10s for 5s", bad=0.5)
    assert delay(result, 0.1)[2] == 0


@pytest.mark.parametrize(
    "when",
    [
        "timeout_rate > 20% over 10s",
        "availability < 80% over 10s",
        "cache_hit_rate < 80% over 10s",
        "latency_p80 > 1s over 10s",
    ],
)
@pytest.mark.usefixtures("one_split")
def test_every_kind_of_bad_reaches_its_metric(when: str) -> None:
    assert delay(simulated(when, bad=1.0), 1.0)[2] == 0
    assert delay(simulated(when, bad=0.05), 1.0)[2] == 1


def test_false_alarms_are_counted_and_rarer_with_a_hold() -> None:
    def alarms(when: str) -> tuple[float, float]:
        traffic, chance = Scenario(rate=5, split=1.0, healthy=0.05, bad=0.5), np.random.default_rng(1)
        steady, bursty = (false_alarms(spec(when), traffic, 1, bursty, chance) for bursty in (False, True))
        return steady, bursty

    at_once, held = alarms("error_rate > 10% over 10s"), alarms("error_rate > 10% over 10s for 30s")
    assert at_once[0] > 1000
    assert held[0] < at_once[0] / 10
    assert held[1] < at_once[1]


@pytest.mark.usefixtures("one_split")
def test_the_same_seed_gives_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    # How many copies draw from the seed is not the point.
    monkeypatch.setattr("agent.offline.simulate.COPIES", 100)
    first, second = (simulated("error_rate@on > 3% over 10s for 5s", days=0.1) for _ in range(2))
    assert first == second


def test_the_limit_is_the_share_of_bad_requests_at_which_the_condition_becomes_true() -> None:
    assert bad_limit(spec("error_rate > 2%"), None) == pytest.approx(0.02)
    assert bad_limit(spec("availability < 99%"), None) == pytest.approx(0.01)
    assert bad_limit(spec("latency_p95 > 45s"), None) == pytest.approx(0.05)
    assert bad_limit(spec("error_rate@on > 3x control", "off"), 0.01) == pytest.approx(0.03)
    assert bad_limit(spec("throughput < 1"), None) is None
    assert bad_limit(spec("measure.quality < 0.8"), None) is None
    assert bad_limit(spec("availability > 99%"), None) is None


def test_the_command_prints_every_trigger_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, plot = tmp_path / "flipback.yaml", tmp_path / "out.html"
    path.write_text(CONFIG + "      - {name: quiet, when: throughput < 1/s for 1m}\n")
    assert run("simulate", "-c", str(path), "--days", "0", "--json", "--plot", str(plot)) == 0
    errors, quiet = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [one["split"] for one in errors["delays"]] == [0.1, 0.25, 0.5, 1.0]
    assert "cannot be made up" in quiet["skipped"]
    assert "http" not in plot.read_text()
    assert "not simulated" not in page([])


@pytest.mark.usefixtures("one_split")
def test_the_fast_tier_sees_half_of_the_requests_failing_within_two_seconds() -> None:
    rule = replace(spec("error_rate > 2% for 2m"), fast=True)
    (slow,) = simulate([spec("error_rate > 2% for 2m")], rate=50, split=1, healthy=None, bad=0.5, days=0, seed=1)
    (fast,) = simulate([rule], rate=50, split=1, healthy=None, bad=0.5, days=0, seed=1)
    p50, p95, missed = delay(fast, 1.0)
    assert p50 is not None
    assert p95 is not None
    assert (p50 <= 2, p95 <= 2, missed) == (True, True, 0)
    held, _, _ = delay(slow, 1.0)
    assert held is not None
    assert held > 120


@pytest.mark.parametrize("when", ["error_rate@on > control", "availability@on < control", "latency_p95@on > control"])
@pytest.mark.usefixtures("one_split")
def test_a_proof_is_simulated_against_the_control(when: str) -> None:
    (found,) = simulate([spec(when, "off")], rate=50, split=0.5, healthy=0.005, bad=0.5, days=0, seed=1)
    p50, _, missed = delay(found, 0.5)
    assert p50 is not None
    assert (p50 < 10, missed) == (True, 0)
    assert found.scenario is not None
    assert false_alarms(spec(when, "off"), found.scenario, 0.05, False, np.random.default_rng(2)) == 0


def test_what_is_no_share_of_bad_requests_is_not_simulated() -> None:
    (found,) = simulate([spec("absence@on", "off")], rate=50, split=0.5, healthy=None, bad=None, days=0, seed=1)
    assert "cannot be made up" in found.skipped


def test_what_cannot_be_seen_at_a_split_is_out_of_reach_and_not_missed() -> None:
    """If 4 % of a tenth of the requests fail, 0.85 % of all do: a whole-service limit of 2 % cannot see it."""
    whole, variant = spec("error_rate > 2% over 10s"), spec("error_rate@on > 2% over 10s")
    found = list(simulate([whole, variant], rate=50, split=0.1, healthy=0.005, bad=0.04, days=0, seed=1))
    reach = {one.condition: [delay.in_reach for delay in one.delays] for one in found}
    assert reach == {"error_rate > 2% over 10s": [False, False, True, True], "error_rate@on > 2% over 10s": [True] * 4}
    assert [delay.p50 for delay in found[0].delays[:2]] == [None, None]


def test_the_first_of_a_flags_triggers_is_named_at_each_split() -> None:
    whole, variant = spec("error_rate > 2% over 10s"), spec("error_rate@on > 2% over 10s")
    found = list(simulate([whole, variant], rate=50, split=0.1, healthy=0.005, bad=0.5, days=0, seed=1))
    first = first_seen(found)
    assert [split for split, _, _ in first] == [0.1, 0.25, 0.5, 1.0]
    for split, best, delay in first:
        assert best is not None
        assert delay is not None
        others = [d.p50 for one in found for d in one.delays if d.split == split and d.p50 is not None]
        assert delay.p50 == min(others)
    assert first_seen([]) == []
