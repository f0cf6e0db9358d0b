"""Options with impossible values are wrong usage: they fail before the work begins, without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.recordings import T0
from tests.unit.agent.cli.test_keys_and_restore import CONFIG, run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    (tmp_path / "labels.yaml").write_text(f"- {{at: {T0}, service: shopp}}")
    sample = {"ts": T0 + 0.5, "service": "shop", "status": 200}
    (tmp_path / "recording.jsonl").write_text(json.dumps(sample) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


BACKTEST = ["backtest", "-c", "flipback.yaml", "--labels", "labels.yaml", "recording.jsonl"]
SIMULATE = ["simulate", "-c", "flipback.yaml"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "arguments",
    [
        [*SIMULATE, "--days", "nan"],
        [*SIMULATE, "--days", "-1"],
        [*SIMULATE, "--days", "inf"],
        [*SIMULATE, "--rate", "inf"],
        [*SIMULATE, "--rate", "1e12"],
        [*SIMULATE, "--bad", "nan"],
        [*SIMULATE, "--plot", "nonexist/x.html"],
        [*BACKTEST, "--within", "nan"],
        [*BACKTEST, "--within", "-5"],
        [*BACKTEST, "--plot", "nonexist/x.html"],
        ["test", "absent.yaml", "--junit", "nonexist/x.xml"],
        ["test", "absent.yaml", "--junit", "."],
        ["replay", "-c", "flipback.yaml", "recording.jsonl", "--at-speed", "nan"],
        ["config", "check", "flipback.yaml", "--rate", "nan"],
        ["fake", "rtdb", "--port", "99999"],
        ["fake", "rtdb", "--control-port", "-1"],
        ["fake", "rtdb", "--fault", "nonsense"],
        ["fake", "rtdb", "--fault", "write:status=many"],
        ["fake", "rtdb", "--flag", "a/b=on"],
        ["fake", "firestore", "--flag", "a/b=on"],
        ["fake", "remote-config", "--flag", "=on"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_worked_with_is_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert "Error: " in output.err
    assert output.out == ""


@pytest.mark.usefixtures("home")
def test_a_label_that_no_trigger_can_see_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*BACKTEST) == 0
    assert "any environment/shopp, which no trigger watches; watched are production/shop" in capsys.readouterr().err


def test_a_replay_in_which_nothing_was_counted_fails_and_names_the_file(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "other.jsonl").write_text("{\n")
    assert run("replay", "-c", "flipback.yaml", "other.jsonl") == 1
    said = capsys.readouterr().err
    assert "other.jsonl: record 0: " in said
    assert "other.jsonl: nothing in it was counted" in said
    assert run("replay", "-c", "flipback.yaml", "other.jsonl", "recording.jsonl") == 0
    said = capsys.readouterr().err
    assert "other.jsonl: nothing in it was counted" in said
    assert "recording.jsonl: nothing" not in said
