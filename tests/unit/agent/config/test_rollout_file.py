"""Whatever is wrong with a rollout file is named before the rollout starts: where, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.load import load, render
from agent.config.load_rollout import is_rollout, load_rollout, read_rollout, spec_hash
from agent.config.model import Config
from agent.config.rollout_plan import notes, plan, shortest
from agent.errors import ConfigError

CONFIG = """\
apiVersion: flipback/v1
kafka: {brokers: ["127.0.0.1:9092"]}
telemetry: [{topic: requests, format: json}]
backends:
  staged: {kind: flagd-file, path: staging.json}
  live: {kind: flagd-file, path: production.json}
flags:
  - {flag: new-cart, environment: staging, service: shop, backend: staged, safe: "off", triggers: [
      {name: errors, when: error_rate > 2% for 2m}, {name: slow, when: latency_p95 > 45s for 1m}]}
  - {flag: new-cart, environment: production, service: shop, backend: live, safe: "off", triggers: [
      {name: errors, when: error_rate > 2% for 2m}, {name: cold, when: cache_hit_rate < 40% for 20m, action: alert}]}
"""
ROLLOUT = """\
apiVersion: flipback/v1
rollout: cart
flag: new-cart
variant: "on"
stages:
  - environment: staging
    checks: [e2e]
    drill: true
    steps: [{percent: 100, at_least: 20m}]
  - environment: production
    approval: {by: approver, not: requester}
    steps:
      - {percent: 10, at_least: 5m}
      - {percent: 100, at_least: 30s}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "flipback.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return load(path)


def written(directory: Path, text: str) -> Path:
    path = directory / "cart.yaml"
    path.write_text(text, encoding="utf-8")
    return path


GOOD = ROLLOUT.replace("30s", "10m")


def test_the_plan_is_read_with_every_default_of_its_gate(tmp_path: Path, config: Config) -> None:
    plan = load_rollout(written(tmp_path, GOOD), config)
    assert [[step.percent for step in stage.steps] for stage in plan.stages] == [[100], [10, 100]]
    assert (plan.gate.hold, plan.gate.min_samples, plan.gate.not_met.then) == (60, 1000, "pause")
    assert plan.stages[1].approval is not None
    assert plan.stages[1].approval.other_than == "requester"


def test_a_stage_takes_the_least_times_of_its_steps_and_no_less_than_the_gate_is_held(
    tmp_path: Path, config: Config
) -> None:
    rollout = load_rollout(written(tmp_path, GOOD), config)
    assert [stage.steps_s for stage in plan(rollout, None)] == [(1200,), (300, 600)]
    assert shortest(rollout, None) == 2100
    held = load_rollout(written(tmp_path, GOOD + "gate: {for: 400s}\n"), config)
    assert [stage.steps_s for stage in plan(held, None)] == [(1200,), (400, 600)]


def test_with_a_rate_a_step_also_waits_for_its_samples(tmp_path: Path, config: Config) -> None:
    rollout = load_rollout(written(tmp_path, GOOD), config)
    # 1,000 requests of 10 % of 20 a second.
    assert [stage.steps_s for stage in plan(rollout, 20.0)] == [(1200,), (500, 600)]


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "message"),
    [
        ("10m}", "2m}", 14, "stages[1].steps[1].at_least", "2m is shorter than `over` and `for` of the trigger"),
        ("percent: 10,", "percent: 100,", 14, "stages[1].steps[1].percent", "100 % follows 100 %"),
        (
            "percent: 100, at_least: 10m",
            "percent: 90, at_least: 10m",
            14,
            "stages[1].steps[1].percent",
            "ends with 90 %",
        ),
        ("percent: 10,", "percent: 0,", 13, "stages[1].steps[0].percent", "a percentage above 0, up to 100, found 0"),
        ("flag: new-cart", "flag: new-card", 3, "flag", "the configuration has no flag 'new-card'"),
        ('"on"', '"off"', 4, "variant", "'off' is the safe variant of 'new-cart'"),
        ("environment: staging", "environment: stagging", 6, "stages[0].environment", "not in 'stagging'"),
        ("environment: staging", "environment: production", 10, "stages[1].environment", "is 'production' already"),
        ("at_least: 20m", "at_least: 3h", 9, "stages[0].steps[0].at_least", "not before the gate's deadline of 2h"),
        ("not: requester", "not: approver", 11, "stages[1].approval.not", "one of requester, nobody, found 'approver'"),
        ("checks: [e2e]", "checks: [e2e, e2e]", 7, "stages[0].checks[1]", "'e2e' is named twice"),
        ("drill: true", "dril: true", 8, "stages[0].dril", "unknown setting"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(
    tmp_path: Path, config: Config, old: str, new: str, line: int, path: str, message: str
) -> None:
    assert old in GOOD
    plan, problems = read_rollout(written(tmp_path, GOOD.replace(old, new, 1)), config)
    assert plan is None
    found = {problem.path: problem for problem in problems}
    assert path in found, render(tmp_path, problems)
    assert message in found[path].message
    assert found[path].line == line
    assert found[path].todo


def test_a_problem_of_a_setting_that_stages_share_is_named_once(tmp_path: Path, config: Config) -> None:
    _, problems = read_rollout(written(tmp_path, GOOD.replace("flag: new-cart", "flag: new-card")), config)
    assert [problem.path for problem in problems] == ["flag"]


def test_a_gate_that_is_held_beyond_its_deadline_never_opens(tmp_path: Path, config: Config) -> None:
    _, problems = read_rollout(written(tmp_path, GOOD + "gate: {for: 3h}\n"), config)
    assert [problem.path for problem in problems] == ["gate.for"]


def test_what_is_hardly_meant_is_noted(tmp_path: Path, config: Config) -> None:
    rollout = load_rollout(written(tmp_path, GOOD), config)
    assert list(notes(rollout, config, 100.0)) == []
    assert list(notes(rollout, config, 1.0)) == [
        "production: at 10 %, 1,000 requests take longer than the deadline of 2h"
    ]
    judged = tmp_path / "judged.yaml"
    judged.write_text(CONFIG.replace("when: error_rate >", "when: error_rate@on >"), encoding="utf-8")
    other = load_rollout(written(tmp_path, GOOD.replace('"on"', '"blue"')), load(judged))
    assert list(notes(other, load(judged), None)) == [
        "staging: triggers judge the variants on, not 'blue'",
        "production: triggers judge the variants on, not 'blue'",
    ]


def test_a_trigger_that_rolls_nothing_back_asks_for_no_longer_step(tmp_path: Path, config: Config) -> None:
    # `cold` looks back 21 minutes, and only alerts.
    assert load_rollout(written(tmp_path, GOOD), config).stages[1].steps[0].at_least == 300


def test_all_problems_are_named_at_once_and_in_order(tmp_path: Path, config: Config) -> None:
    bad = GOOD.replace('"on"', '"off"').replace("at_least: 5m", "at_least: 5").replace("20m", "1m")
    with pytest.raises(ConfigError) as caught:
        load_rollout(written(tmp_path, bad), config)
    assert "3 problems in" in str(caught.value)


def test_the_hash_names_the_plan_and_not_how_it_is_written(tmp_path: Path, config: Config) -> None:
    plain = spec_hash(load_rollout(written(tmp_path, GOOD), config))
    spelled = GOOD + "gate: {for: 60s, not_met: {after: 600s}}  # the defaults\n"
    assert spec_hash(load_rollout(written(tmp_path, spelled), config)) == plain
    other = GOOD.replace("percent: 10,", "percent: 11,")
    assert spec_hash(load_rollout(written(tmp_path, other), config)) != plain


def test_a_rollout_file_is_told_from_a_configuration(tmp_path: Path, config: Config) -> None:
    assert is_rollout(written(tmp_path, GOOD))
    assert is_rollout(written(tmp_path, GOOD.replace("rollout: cart\n", "")))
    assert not is_rollout(tmp_path / "flipback.yaml")
    with pytest.raises(ConfigError, match="is a rollout file, not a configuration"):
        load(written(tmp_path, GOOD))
