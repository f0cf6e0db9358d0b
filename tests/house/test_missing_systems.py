"""Without Kafka or Unleash the tests that need it are skipped with a visible line, and fail in continuous
integration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISSING = {"java and mvn": "kafka", "node and npm": "unleash"}
"""The fixture that needs the programs, by their names; PostgreSQL may also be outside the path."""


def run_a_test(directory: Path, system: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one test that needs a system, as on a machine without the programs that start the system."""
    test = directory / f"test_needs_{system}.py"
    test.write_text(f"def test_it({system}):\n    raise AssertionError('ran without it')\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "FLIPBACK_KAFKA")}
    options = ["-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider", *more]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(test)],
        cwd=ROOT,
        env={**kept, "PATH": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("missing", "processes"), [("java and mvn", "0"), ("java and mvn", "1"), ("node and npm", "0")]
)
def test_a_missing_system_is_said_in_one_loud_line(tmp_path: Path, missing: str, processes: str) -> None:
    done = run_a_test(tmp_path, MISSING[missing], "-n", processes)
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("NOT TESTED")]
    assert "1 test " in line
    assert missing in line
    assert "not installed" in line


@pytest.mark.parametrize(
    ("missing", "processes", "ci"),
    [("java and mvn", "1", "true"), ("java and mvn", "0", "1"), ("node and npm", "0", "true")],
)
def test_a_missing_system_fails_in_continuous_integration(
    tmp_path: Path, missing: str, processes: str, ci: str
) -> None:
    done = run_a_test(tmp_path, MISSING[missing], "-n", processes, CI=ci)
    assert done.returncode == 1, done.stdout
    assert "CI must not skip" in done.stdout


def test_a_named_broker_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    done = run_a_test(tmp_path, "kafka", FLIPBACK_KAFKA="127.0.0.1:1")
    assert done.returncode == 1, done.stdout
    assert "FLIPBACK_KAFKA=127.0.0.1:1 does not answer" in done.stdout
