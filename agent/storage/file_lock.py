"""The lock that processes share on a file."""

from __future__ import annotations

import fcntl
from typing import IO, Any


def taken(file: int | IO[Any]) -> bool:
    """Take the lock of an open file, if it is free. It is given back when the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
