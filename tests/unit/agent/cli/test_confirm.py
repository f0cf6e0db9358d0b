"""The person at the command line: every user has a name, a reason is cut to fit, and a prompt takes an answer."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from agent.commands.command import Evidence
from agent.config.load import load
from agent.control.person import MAX_NAME, MAX_REASON, user
from agent.executor.build import open_ledger
from agent.ledger.automation import Automation
from tests.unit.agent.cli.test_keys_and_restore import CONFIG, FLAGS, run

NAMELESS = f"uid {os.getuid()}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a configuration and its flag, where an executor has been."""
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    (tmp_path / "flags.json").write_text(FLAGS)
    open_ledger(load(tmp_path / "flipback.yaml"))
    return tmp_path


def config(home: Path) -> tuple[str, str]:
    return "-c", str(home / "flipback.yaml")


def roll_back(home: Path, *options: str) -> int:
    return run("rollback", "new-checkout", *config(home), "--direct", *options)


def answer(monkeypatch: pytest.MonkeyPatch, given: str | type[BaseException]) -> None:
    def prompt(_: str) -> str:
        if isinstance(given, str):
            return given
        raise given

    monkeypatch.setattr("click.termui.visible_prompt_func", prompt)


@pytest.fixture(params=[KeyError, OSError])
def nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise request.param("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", getuser)


@pytest.mark.usefixtures("nameless")
def test_a_user_without_a_name_can_roll_back_restore_halt_and_resume(home: Path) -> None:
    assert roll_back(home, "--reason", "bad", "--yes") == 0
    (entry,) = open_ledger(load(home / "flipback.yaml")).entries()
    assert entry.command.evidence.by == NAMELESS
    assert run("restore", entry.command.incident, *config(home), "--yes") == 0
    assert run("halt", *config(home), "--reason", "night") == 0
    halted = Automation(home / ".flipback").halted()
    assert halted is not None
    assert halted.data["by"] == NAMELESS
    assert run("resume", *config(home), "--reason", "day") == 0


def test_a_name_and_a_reason_that_are_kept_fit_into_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "x" * 1000 + "\udc80")
    assert len(user()) == MAX_NAME
    limits = {name: str(Evidence.__annotations__[name]) for name in ("by", "reason")}
    assert f"max_length={MAX_NAME}" in limits["by"]
    assert f"max_length={MAX_REASON}" in limits["reason"]


@pytest.mark.parametrize("reason", ["x" * 100_000, "\udc80" * 5000], ids=["long", "no UTF-8"])
def test_a_flag_is_rolled_back_whatever_the_reason_looks_like(
    home: Path, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert roll_back(home, "--reason", reason, "--yes") == 0
    assert '"defaultVariant": "off"' in (home / "flags.json").read_text()
    assert f"cut to its first {MAX_REASON} characters" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["halt"], ["resume"], ["rollback", "new-checkout", "--direct", "--yes"]])
@pytest.mark.parametrize("reason", ["", "  "])
def test_an_empty_reason_is_wrong_usage_and_changes_nothing(home: Path, command: list[str], reason: str) -> None:
    assert run(*command, *config(home), "--reason", reason) == 2
    assert (home / "flags.json").read_text() == FLAGS
    assert Automation(home / ".flipback").last() is None


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [("n", 1, "nothing was done"), (KeyboardInterrupt, 130, "interrupted"), (EOFError, 1, "--yes")],
)
def test_without_a_yes_nothing_is_done(
    home: Path,
    given: str | type[BaseException],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, given)
    assert roll_back(home, "--reason", "bad") == status
    assert said in capsys.readouterr().err
    assert (home / "flags.json").read_text() == FLAGS


def test_a_yes_is_enough(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "y")
    assert roll_back(home, "--reason", "bad") == 0


@pytest.mark.parametrize("command", ["halt", "resume"])
def test_where_no_executor_has_been_nothing_is_halted_or_resumed(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    assert run(command, *config(tmp_path), "--reason", "night") == 1
    assert f"no executor has used state_dir {tmp_path / '.flipback'}" in capsys.readouterr().err
    assert not (tmp_path / ".flipback").exists()


def test_a_second_halt_tells_of_the_first_whose_reason_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("halt", *config(home), "--reason", "night") == 0
    assert str(home / ".flipback") in capsys.readouterr().out
    assert run("halt", *config(home), "--reason", "day") == 0
    assert "night; that reason stays" in capsys.readouterr().out
    halted = Automation(home / ".flipback").halted()
    assert halted is not None
    assert halted.data["reason"] == "night"


def test_an_order_that_cannot_be_signed_is_not_asked_about(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, KeyboardInterrupt)
    assert run("rollback", "new-checkout", *config(home), "--reason", "bad") == 3
    output = capsys.readouterr()
    assert "flipback.key" in output.err
    assert "sending" not in output.out
