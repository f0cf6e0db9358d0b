"""SIGHUP reloads nothing and kills nothing: it is logged, or ends the process as SIGTERM where a terminal closes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import cli
from tests.unit.agent.cli.test_keys_and_restore import CONFIG

# The roles need brokers; what handles signals does not.
_RUN = """
import agent.runtime.worker
async def run(config, roles, stop, *, ending):
    print("running", flush=True)
    await stop.wait()
    print("ended", flush=True)
agent.runtime.worker.run = run
from agent.cli import main
main()
"""


def heard() -> None:
    """As a shell starts a process; the tests themselves may run under `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(directory: Path, stderr: int, before: Callable[[], object] = heard) -> subprocess.Popen[str]:
    file = directory / "flipback.yaml"
    file.write_text(CONFIG)
    started = subprocess.Popen(
        [sys.executable, "-c", _RUN, "run", "-c", str(file), "--log-json"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        preexec_fn=before,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "running\n", f"it ended with {started.wait(60)}"
    return started


def test_a_process_without_a_terminal_logs_it_and_goes_on_whatever_the_file_has_become(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = start(tmp_path, subprocess.PIPE)
    assert started.stderr is not None
    file = tmp_path / "flipback.yaml"
    file.write_text(CONFIG.replace("safe: ", "save: "))
    started.send_signal(signal.SIGHUP)
    told = json.loads(started.stderr.readline())
    assert (told["event"], told["level"]) == ("run.not-reloaded", "warning")
    assert f"flipback config check {file}" in told["todo"]
    with pytest.raises(SystemExit) as checked:
        cli.main(["config", "check", str(file), "--no-files"])
    assert checked.value.code == 3
    assert "save" in capsys.readouterr().err
    assert started.poll() is None
    started.send_signal(signal.SIGTERM)
    out, err = started.communicate(timeout=60)
    assert (started.returncode, out, err) == (0, "ended\n", "")


def test_on_a_terminal_it_is_the_end(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        started = start(tmp_path, theirs)
        started.send_signal(signal.SIGHUP)
        out, _ = started.communicate(timeout=60)
        assert (started.returncode, out) == (0, "ended\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_under_nohup_it_stays_ignored(tmp_path: Path) -> None:
    started = start(tmp_path, subprocess.PIPE, lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    started.send_signal(signal.SIGHUP)
    started.send_signal(signal.SIGTERM)
    out, err = started.communicate(timeout=60)
    assert (started.returncode, out, err) == (0, "ended\n", "")
