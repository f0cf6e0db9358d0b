"""Child processes that end with this process, even if it is ended by Ctrl-C or kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import FlipbackError

STOP_TIMEOUT = 4.0
"""Seconds after SIGTERM until SIGKILL; `flipback run` takes up to three."""

_POLL = 0.05

# Python code between fork and exec is not safe in a process with threads. So this small program asks Linux to kill it
# when its parent ends, and then becomes the child by execv. The setting survives execve(2) and a new session; 1 is
# PR_SET_PDEATHSIG, see prctl(2).
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class DemoFailed(FlipbackError):
    """The demo cannot be shown; the message gives the reason and the place of the logs."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process and the file with its output."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def check(self) -> None:
        """Raise DemoFailed, with the last lines of the log, if the process has ended."""
        status = self.process.returncode
        if status is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            lines = self.log.read_text(errors="replace").splitlines()[-5:]
            raise DemoFailed(
                "\n".join([f"{self.name} {how}; the end of {self.log}:", *(f"  {line}" for line in lines)])
            )

    async def answers(self, probe: Callable[[], Awaitable[bool]], within: float) -> None:
        """Wait until `probe` returns True. Raises DemoFailed if the process ends before, or after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while not await probe():
                    self.check()
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise DemoFailed(f"{self.name} does not answer after {within:.0f} s; see {self.log}") from None


async def start(name: str, command: Sequence[str], directory: Path) -> Child:
    """Start a process whose log and temporary files are in `directory`.

    It runs in a new session, so that Ctrl-C in the terminal does not reach it directly: the demo stops it.
    """
    path = directory / f"{name}.log"
    guarded = [sys.executable, "-ISc", _DIE_WITH_PARENT, str(os.getpid()), *command]
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *guarded,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(directory)},
            start_new_session=True,
        )
    return Child(name, process, path)


async def stop(*children: Child) -> None:
    """End all children concurrently, by SIGTERM and after STOP_TIMEOUT by SIGKILL; returns when they have ended."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            child.process.terminate()
    ends = [asyncio.create_task(child.process.wait()) for child in children]
    if not ends:
        return
    _, late = await asyncio.wait(ends, timeout=STOP_TIMEOUT)
    for child in children if late else ():
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
    await asyncio.gather(*ends)


def free_port() -> int:
    """A port without a listener, below Linux's ephemeral range (from 32768), so that no outgoing connection uses it."""
    while True:
        port = random.randrange(20000, 32000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def listens(host: str, port: int) -> bool:
    """Whether a process accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
