"""The end in bounded time: whatever still runs, the process ends with the status of an end in time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agent.runtime import shutdown

_STUCK = """
import threading
from agent.errors import ConfigError, FlipbackError
from agent.logs.setup import configure
from agent.runtime.shutdown import Deadline
configure(json=True)
{how}
# The interpreter waits for a thread like this one, as Faust's are.
threading.Thread(target=threading.Event().wait).start()
{then}
"""


def run(how: str, then: str = "") -> subprocess.CompletedProcess[str]:
    code = _STUCK.format(how=how, then=then)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("error", "status", "level"),
    [("None", 0, "warning"), ("FlipbackError('ingest ended')", 1, "error"), ("ValueError('wrong')", 1, "error")],
)
def test_a_process_that_does_not_end_is_cut_short_with_the_status_of_an_end_in_time(
    error: str, status: int, level: str
) -> None:
    done = run(f"Deadline(within=0.2).begin({error})")
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["status"]) == ("run.cut-short", level, status)
    assert done.returncode == status
    assert ("error" in told) == (error != "None")


def test_the_time_of_an_end_leaves_a_second_of_the_three_that_are_promised() -> None:
    # The rest is for a busy machine: to wake up, and to take the process down.
    assert shutdown.END_WITHIN + shutdown._LOG_WITHIN <= 2


def test_an_event_loop_that_is_blocked_is_cut_short_too() -> None:
    done = run("Deadline(within=0.2).begin()", "threading.Event().wait()")
    assert (done.returncode, "run.cut-short" in done.stderr) == (0, True)


def test_the_first_reason_to_end_decides() -> None:
    done = run("d = Deadline(within=0.2)\nd.begin(FlipbackError('monitor ended'))\nd.begin()")
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"] == "monitor ended"


def test_a_block_that_is_left_with_an_error_ends_with_its_status() -> None:
    how = "try:\n    with Deadline(within=0.2):\n        raise ConfigError('no key')\nexcept ConfigError:\n    pass"
    assert run(how).returncode == 3


def test_a_process_that_ends_by_itself_is_not_cut_short() -> None:
    code = "from agent.runtime.shutdown import Deadline\nDeadline(within=30).begin()\nraise SystemExit(5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (5, "")


_SIGNALLED = """
import asyncio, os, signal, uvloop
from agent.logs.setup import configure
from agent.runtime.shutdown import Deadline, end_on_signals
configure(json=True)
async def main():
    stop = asyncio.Event()
    end_on_signals(Deadline(within={within}), stop)
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.{number})
    await stop.wait()
    {then}
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def signalled(number: str, within: float, then: str = "") -> subprocess.CompletedProcess[str]:
    code = _SIGNALLED.format(number=number, within=within, then=then)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_what_waits_in_the_loop(number: str) -> None:
    done = signalled(number, 30)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_counts_from_when_it_comes_though_the_loop_never_comes_to_it() -> None:
    busy = "os.kill(os.getpid(), signal.SIGTERM)\n    while True: pass"
    code = _SIGNALLED.format(number="SIGTERM", within=0.2, then="").replace("await stop.wait()", busy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert json.loads(done.stderr)["event"] == "run.cut-short"


def test_a_second_signal_changes_nothing() -> None:
    done = signalled("SIGTERM", 0.3, "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_after_the_loop_has_ended_changes_nothing() -> None:
    code = _SIGNALLED.format(number="SIGTERM", within=30, then="") + "os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
