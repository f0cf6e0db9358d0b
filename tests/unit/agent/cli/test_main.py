"""The command line as a whole: cheap help, exit statuses, errors without tracebacks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import click
import pytest

from agent import cli
from agent.errors import FlipbackError
from detectors.errors import DetectorError
from streams.errors import StreamsError

HEAVY = {
    "numpy",
    "faust",
    "mode",
    "aiokafka",
    "aiohttp",
    "rich",
    "msgspec",
    "yaml",
    "cryptography",
    "uvloop",
    "asyncio",
}


class Outcome:
    """What the command `probe` does in the tests below."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.status: int | None = None


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    outcome = Outcome()

    @click.command("probe")
    def command() -> int | None:
        if outcome.error is not None:
            raise outcome.error
        return outcome.status

    module = ModuleType("probe_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "probe_command", module)
    monkeypatch.setitem(cli.SUBCOMMANDS, "probe", cli.Subcommand("probe_command:command", "A probe."))
    return outcome


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert isinstance(exited.value.code, int)
    return exited.value.code


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    script = (
        "import atexit, json, sys; from agent.cli import main\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"main(['{option}'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert not HEAVY & set(json.loads(done.stderr))


def test_help_names_every_command_and_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  ([a-z]+)  ", text, re.MULTILINE) == list(cli.SUBCOMMANDS)
    statuses = {int(number) for number in re.findall(r"^    (\d+)  ", text, re.MULTILINE)}
    assert {error.exit_code for error in _tree(FlipbackError)} <= statuses


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_returns_its_exit_status(probe: Outcome, returned: int | None, status: int) -> None:
    probe.status = returned
    assert run("probe") == status


@pytest.mark.parametrize("error_type", [FlipbackError, StreamsError, DetectorError])
def test_a_known_error_is_one_message_and_no_traceback(
    probe: Outcome, capsys: pytest.CaptureFixture[str], error_type: type[Exception]
) -> None:
    probe.error = error_type("flags.json is not writable; give the agent write access")
    assert run("probe") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "flipback: flags.json is not writable; give the agent write access\n"


def test_an_error_chooses_its_exit_status(probe: Outcome) -> None:
    class Invalid(FlipbackError):
        exit_code = 3

    probe.error = Invalid("no")
    assert run("probe") == 3


def test_an_interrupt_is_status_130(probe: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    probe.error = KeyboardInterrupt()
    assert run("probe") == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["probe", "unasked"]])
def test_wrong_usage_is_status_2(probe: Outcome, arguments: list[str]) -> None:
    assert run(*arguments) == 2


def test_an_unforeseen_error_keeps_its_traceback(probe: Outcome) -> None:
    probe.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        cli.main(["probe"])


def _tree(root: type[FlipbackError]) -> Iterator[type[FlipbackError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)
