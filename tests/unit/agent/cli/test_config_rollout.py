"""`flipback config check` of a rollout file: the plan by stage, or every problem and status 3; and its schema."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent.cli import main
from agent.config.json_schema import schema
from agent.config.load import load
from agent.config.load_rollout import read_rollout
from agent.config.rollout_file import Rollout
from agent.config.starter import Names, write

ROLLOUT = """\
apiVersion: flipback/v1
rollout: recommendations
flag: new-recommendations
variant: "on"
stages:
  - environment: production
    approval: {by: approver, not: requester}
    checks: [e2e]
    steps: [{percent: 10, at_least: 10m}, {percent: 100, at_least: 30m}]
gate:
  for: 1m
  not_met: {after: 10m, then: pause}
"""
PLAN = """\
  production: 10 % -> 100 %, 40m at least; asks for checks e2e, an approval before it
  gate: everything met together for 1m, 1,000 requests of 'on' a step
  whole rollout: 40m at least, without the time of people
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        main(["config", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, out, err


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    write(tmp_path, Names())
    path = tmp_path / "recommendations.yaml"
    path.write_text(ROLLOUT, encoding="utf-8")
    return path


def test_the_plan_is_shown_by_stage(capsys: pytest.CaptureFixture[str], rollout: Path) -> None:
    status, out, err = run(capsys, "check", rollout)
    assert (status, err) == (0, "")
    first, rest = out.split("\n", 1)
    assert first.startswith(f"{rollout}: ok, plan ")
    assert rest == PLAN


def test_the_configuration_may_lie_elsewhere(capsys: pytest.CaptureFixture[str], rollout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = rollout.rename(elsewhere / "rollout.yaml")
    assert run(capsys, "check", moved)[0] == 3
    assert run(capsys, "check", moved, "-c", tmp_path / "flipback.yaml")[0] == 0


def test_programs_get_each_steps_least_seconds(capsys: pytest.CaptureFixture[str], rollout: Path) -> None:
    status, out, _ = run(capsys, "check", rollout, "--json", "--rate", "10")
    found = json.loads(out)
    assert status == 0
    # 1,000 requests of 10 % of 10 a second.
    assert found["stages"][0]["steps"] == [{"percent": 10, "shortest_s": 1000}, {"percent": 100, "shortest_s": 1800}]
    assert found["shortest_s"] == 2800


def test_every_problem_is_printed_with_its_line_and_status_3(capsys: pytest.CaptureFixture[str], rollout: Path) -> None:
    rollout.write_text(ROLLOUT.replace('"on"', '"off"').replace("percent: 100", "percent: 5"))
    status, out, err = run(capsys, "check", rollout)
    assert (status, out) == (3, "")
    assert f"{rollout}:4: variant: 'off' is the safe variant of 'new-recommendations'" in err
    assert f"{rollout}:9: stages[0].steps[1].percent: 5 % follows 10 %" in err
    assert "3 problems in" in err


def test_a_broken_configuration_is_reported_to_programs_too(capsys: pytest.CaptureFixture[str], rollout: Path) -> None:
    rollout.with_name("flipback.yaml").write_text("apiVersion: flipback/v1\n")
    status, out, err = run(capsys, "check", rollout, "--json")
    found = json.loads(out)
    assert (status, err, found["ok"], found["file"]) == (3, "", False, str(rollout.with_name("flipback.yaml")))
    assert [problem["path"] for problem in found["problems"]] == ["kafka", "telemetry", "backends", "flags"]


BROKEN: dict[str, Any] = {
    "stages": [],
    "variant": "",
    "rollout": " x",
    "gate": {"for": 60},
    "apiVersion": "flipback/v2",
    "target": [],
}


def test_the_schema_accepts_what_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "schema", "--rollout")
    printed = json.loads(out)
    assert (status, printed) == (0, schema(Rollout))
    jsonschema.Draft202012Validator.check_schema(printed)
    jsonschema.Draft202012Validator(printed).validate(yaml.safe_load(ROLLOUT))


@pytest.mark.parametrize("name", BROKEN)
def test_schema_and_decoder_refuse_the_same(name: str, rollout: Path) -> None:
    broken = copy.deepcopy(yaml.safe_load(ROLLOUT))
    broken[name] = BROKEN[name]
    assert not jsonschema.Draft202012Validator(schema(Rollout)).is_valid(broken)
    rollout.write_text(yaml.safe_dump(broken))
    assert read_rollout(rollout, load(rollout.with_name("flipback.yaml")))[1]
