"""A server that all processes of a test run share: the first one that needs it starts it and stops it after the
last."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


@contextmanager
def together(directory: Path, serving: Callable[[Path], AbstractContextManager[str]]) -> Iterator[str]:
    """Yield the value of `serving(directory)` in every process that calls this with the directory; one of them runs it.

    At the end that process waits for the others. The kernel releases the locks of a process that dies, so it blocks
    nobody.
    """
    directory.mkdir(parents=True, exist_ok=True)
    served = directory / "served"
    # The order of the locks matters: a running server does not stop while this process holds its shared lock on
    # `users`.
    with (directory / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with (directory / "start").open("w") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            if served.exists():
                started, found = None, served.read_text()
            else:
                started = serving(directory)
                found = started.__enter__()
                served.write_text(found)
        try:
            yield found
        finally:
            if started is not None:
                fcntl.flock(users, fcntl.LOCK_EX)
                served.unlink()
                started.__exit__(None, None, None)
