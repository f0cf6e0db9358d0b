"""`flipback config`: `check` reports every problem with status 3, else the triggers; `show` and `schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli import main
from agent.config.json_schema import schema
from agent.config.load import load, rules_hash

COMPOSE = Path(__file__).parents[4] / "compose"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        main(["config", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, out, err


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "flipback.yaml"
    text = (COMPOSE / "flipback.yaml").read_text()
    path.write_text(text.replace("error_rate > 2% for 2m", "eror_rate > 2% for 2m"))
    (tmp_path / "baseline.json").write_text((COMPOSE / "baseline.json").read_text())
    return path


def test_a_valid_file_is_shown_with_every_default_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "check", COMPOSE / "flipback.yaml")
    assert (status, err) == (0, "")
    assert "flipback.yaml: ok, rules " in out
    assert "production/recommendations: new-recommendations, safe 'off'\n" in out
    assert "  errors: error_rate > 2% over 1m for 2m -> rollback\n" in out
    fast = "unknown_grace 30s, unknown_alert 5m, fast: a false alarm in 30d at most\n"
    # From the 0.2 % of bad requests in the sample's baseline file.
    assert f"      min_samples 400 (auto, windows up to 10m), {fast}" in out
    assert "  worse-than-off: error_rate@on > 3x control over 30s for 1m -> rollback (shadow)\n" in out
    assert "min_samples 1400 (auto, windows up to 10m), unknown_grace 30s, unknown_alert 5m, baseline 812\n" in out


@pytest.mark.parametrize(
    ("rate", "down"),
    [
        (100, "min_samples 5900 (auto, windows up to 10m), in 59s at 100/s, unknown_grace"),
        (1, "min_samples 5900 (auto, windows up to 10m), in 5900s at 1/s: longer than any window, so unknown, "),
    ],
)
def test_it_says_how_long_the_samples_take_at_a_rate(capsys: pytest.CaptureFixture[str], rate: int, down: str) -> None:
    status, out, _ = run(capsys, "check", COMPOSE / "flipback.yaml", "--rate", str(rate))
    assert status == 0
    assert down in out


def test_without_a_rate_the_stored_throughput_tells_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "flipback.yaml"
    path.write_text((COMPOSE / "flipback.yaml").read_text())
    stored = {"production/recommendations": {"latency_p99": 812.0, "throughput": 50}}
    (tmp_path / "baseline.json").write_text(json.dumps({"apiVersion": "flipback/v1", "baseline": stored}))
    _, out, _ = run(capsys, "check", path)
    assert "min_samples 900 (auto, windows up to 10m), in 18s at 50/s, " in out
    _, out, _ = run(capsys, "check", "--json", path)
    assert json.loads(out)["triggers"][0]["samples_take_s"] == 18


def test_every_problem_goes_to_stderr_with_status_3(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    status, out, err = run(capsys, "check", broken)
    assert (status, out) == (3, "")
    assert "flags[0].triggers[0].when: 'eror_rate' is not a metric; did you mean error_rate?" in err
    assert "\n    eror_rate > 2% for 2m\n    ^^^^^^^^^\n" in err


def test_a_program_gets_the_triggers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "check", "--json", COMPOSE / "flipback.toml")
    found = json.loads(out)
    assert status == 0
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["triggers"][0] == {
        "environment": "production",
        "service": "recommendations",
        "flag": "new-recommendations",
        "name": "errors",
        "when": "error_rate > 2% over 1m for 2m",
        "over": 60,
        "for": 120,
        "min_samples": 400,
        "windows": [60, 120, 240, 480, 600],
        "samples_take_s": None,
        "fast": True,
        "false_alarms": 2_592_000,
        "unknown_grace": 30,
        "unknown_alert": 300,
        "threshold": 0.02,
        "action": "rollback",
        "shadow": False,
        "safe": "off",
        "control": None,
        "note": None,
    }


def test_a_program_gets_the_problems_as_json(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    status, out, err = run(capsys, "check", "--json", broken)
    found = json.loads(out)
    assert (status, err, found["ok"]) == (3, "", False)
    (problem,) = found["problems"]
    assert problem["path"] == "flags[0].triggers[0].when"
    assert problem["excerpt"].endswith("^^^^^^^^^")


def test_a_file_that_is_not_there_is_a_wrong_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "check", tmp_path / "none.yaml")
    assert status == 3
    assert "cannot be read: No such file or directory" in err


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "schema")
    assert status == 0
    assert json.loads(out) == schema()


def test_a_configuration_is_shown_whole_and_without_what_may_be_secret_in_addresses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = '{kind: webhook, url: "https://flags.example.org/set?key=hunter2", secret_file: webhook.secret}'
    text = (COMPOSE / "flipback.yaml").read_text().replace("backends:\n", f"backends:\n  own: {own}\n")
    path = tmp_path / "flipback.yaml"
    path.write_text(text.replace("baseline.json", str(COMPOSE / "baseline.json")))
    status, out, _ = run(capsys, "show", path)
    assert status == 0
    shown = json.loads(out)
    assert "hunter2" not in out
    assert shown["backends"]["own"]["url"] == "https://flags.example.org/set?***"
    assert shown["backends"]["files"]["kind"] == "flagd-file"
    assert shown["automation"] == {"max_flips": 3, "max_share": 0.1, "within": "600s"}


def test_what_is_shown_is_a_configuration_of_the_same_rules_with_nothing_left_to_another_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = COMPOSE / "flipback.yaml"
    status, out, _ = run(capsys, "show", path)
    assert status == 0
    (tmp_path / "flipback.json").write_text(out)
    assert rules_hash(load(tmp_path / "flipback.json")) == rules_hash(load(path))
    shown = json.loads(out)
    assert all(None not in flag.values() for flag in shown["flags"])
    assert all(None not in trigger.values() for flag in shown["flags"] for trigger in flag["triggers"])
    assert None not in shown["keys"].values()
