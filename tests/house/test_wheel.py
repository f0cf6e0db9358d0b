"""The wheel works when it is installed alone, away from the source tree."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "streams", "detectors")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

CONFIGURATION = """\
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry: [{topic: requests, format: json}]
backends: {files: {kind: flagd-file, path: flags.json}}
flags:
  - flag: new-recommendations
    service: recommendations
    backend: files
    safe: "off"
    triggers: [{name: errors, when: error_rate > 2% for 10s}]
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT, cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` of a new environment with the wheel; it uses the libraries of this environment."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(environment)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    # Python does not read path files in a directory that a path file names, so the editable flipback is not found.
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=environment)
    return python.parent


def test_the_wheel_holds_three_typed_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, f"flipback-{VERSION}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    wanted = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_the_installed_command_tells_its_version(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "flipback", "--version", cwd=tmp_path) == f"flipback {VERSION}\n"


def test_the_installed_packages_are_the_wheels(installed: Path, tmp_path: Path) -> None:
    script = "import agent, streams, detectors; print(agent.__file__, streams.__file__, detectors.__file__)"
    for file in run(installed / "python", "-c", script, cwd=tmp_path).split():
        assert Path(file).is_relative_to(installed.parent)


def test_the_installed_command_replays_a_recording(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIGURATION)
    start = 1_700_000_000
    with (tmp_path / "recording.jsonl").open("w") as recording:
        for second in range(60):
            for request in range(20):
                # From second 20 on the requests with the flag, every second one, fail.
                on = request % 2 == 1
                sample = {
                    "ts": start + second + request / 20,
                    "service": "recommendations",
                    "status": 500 if on and second >= 20 else 200,
                    "flags": {"new-recommendations": "on" if on else "off"},
                }
                recording.write(json.dumps(sample) + "\n")
    command = ("replay", "--config", "flipback.yaml", "--json", "recording.jsonl")
    lines = [json.loads(line) for line in run(installed / "flipback", *command, cwd=tmp_path).splitlines()]
    (commanded,) = [line for line in lines if line["type"] == "command"]
    assert (commanded["flag"], commanded["target"]) == ("new-recommendations", "off")
    # Half of 20 requests a second fail: two seconds are enough evidence for the fast tier.
    assert commanded["time"] == start + 22
