"""A server that the processes of one test run share: the first that needs it starts it, and ends it after the last."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


@contextmanager
def together(directory: Path, serving: Callable[[Path], AbstractContextManager[str]]) -> Iterator[str]:
    """Yield what `serving(directory)` yields, in every process that names this directory; it runs in one of them.

    That one waits at the end for the others. The locks are the kernel's, so a process that dies holds up nobody.
    """
    directory.mkdir(parents=True, exist_ok=True)
    served = directory / "served"
    # The order matters: who has a share of `users` finds a server that lives until it gives the share back, or none.
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
