"""Processes that never outlive the demo: not its end, not Ctrl-C, not even kill -9."""

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

# Between fork and exec Python code is not safe where there are threads, so a program does it that becomes the child.
# Linux clears the signal neither at execve(2) nor for a session of its own; 1 is PR_SET_PDEATHSIG, see prctl(2).
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class DemoFailed(FlipbackError):
    """The demo cannot be shown; the message says why and where the logs are."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process and the file that its output goes to."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def check(self) -> None:
        """DemoFailed if it has ended, with the end of its log."""
        status = self.process.returncode
        if status is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            lines = self.log.read_text(errors="replace").splitlines()[-5:]
            raise DemoFailed(
                "\n".join([f"{self.name} {how}; the end of {self.log}:", *(f"  {line}" for line in lines)])
            )

    async def answers(self, probe: Callable[[], Awaitable[bool]], within: float) -> None:
        """Wait until `probe` says so; DemoFailed where the process ends before, or after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while not await probe():
                    self.check()
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise DemoFailed(f"{self.name} does not answer after {within:.0f} s; see {self.log}") from None


async def start(name: str, command: Sequence[str], directory: Path) -> Child:
    """Start a process whose log and temporary files lie in `directory`.

    It has a session of its own, so that Ctrl-C in the terminal reaches it through the demo alone.
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
    """End them all at once, by SIGTERM and after STOP_TIMEOUT by SIGKILL; returns when they are gone."""
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
    """A port that nobody listens on, below Linux's ephemeral range (32768 up): no outgoing connection takes it."""
    while True:
        port = random.randrange(20000, 32000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def listens(host: str, port: int) -> bool:
    """Does somebody accept connections there?"""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
