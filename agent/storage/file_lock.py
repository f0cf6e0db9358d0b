"""A lock on a file, shared by processes."""

from __future__ import annotations

import fcntl
from typing import IO, Any


def taken(file: int | IO[Any]) -> bool:
    """Take the lock of an open file; False if another process has it. Closing the file releases the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
