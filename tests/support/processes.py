"""Servers that the tests start, and that end with the process that started them."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

_GUARD = """\
signal=$1; shift
exec 3<&0
"$@" 3<&- </dev/null & server=$!
{ read _ <&3; kill -$signal $server; } 2>/dev/null &
wait $server
kill -9 $! 2>/dev/null
"""


def start_guarded(
    command: Sequence[str],
    log: IO[bytes],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    user: tuple[int, int] | None = None,
    signal: Literal["KILL", "QUIT"] = "KILL",
) -> subprocess.Popen[bytes]:
    """Start a server that gets `signal` when `end_guarded` is called, or when this process ends in any way.

    A shell, the guard, waits for the end of its standard input, which the kernel closes when this process ends, even by
    SIGKILL. The server runs in a new session, so that Ctrl-C in the terminal does not reach it. `user` is a user id and
    a group id.
    """
    return subprocess.Popen(
        ["sh", "-c", _GUARD, "guard", signal, *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        cwd=directory,
        env=environment,
        user=None if user is None else user[0],
        group=None if user is None else user[1],
        extra_groups=None if user is None else [],
        start_new_session=True,
    )


def end_guarded(process: subprocess.Popen[bytes]) -> None:
    """End the server by the signal that it was started with."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=60)


def free_ports(count: int) -> list[int]:
    """Free ports below Linux's ephemeral range (from 32768), so that no outgoing connection takes them."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            candidate = random.randrange(20000, 32000)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            ports.append(candidate)
        return ports
