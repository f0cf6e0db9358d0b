"""File attributes that `chattr` sets: some of them forbid to replace the file, whatever its mode and owner are.

https://man7.org/linux/man-pages/man2/ioctl_iflags.2.html
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_GETFLAGS = 0x80086601 if struct.calcsize("l") == 8 else 0x80046601
"""FS_IOC_GETFLAGS, which reads the flags that `lsattr` shows; valid on the machines for which Python has wheels."""
_STOPS = {0x10: ("immutable", "i"), 0x20: ("append-only", "a")}
"""FS_IMMUTABLE_FL and FS_APPEND_FL: the kernel refuses to rename over such a file, or in such a directory."""


def sealed(path: Path) -> Iterator[str]:
    """Yield the attributes of the file at `path`, and of its directory, that forbid to replace it. Blocks on the disk.

    Yields nothing if the file system has no attributes, or does not show them.
    """
    for place, what in ((path, "it"), (path.parent, "what is in it")):
        flags = _flags(place)
        for bit, (name, letter) in _STOPS.items():
            if flags & bit:
                yield f"{place} is {name}, so that {what} cannot be replaced: chattr -{letter} {place}"


def _flags(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # The kernel writes an int, although the request is declared for a long.
            return int.from_bytes(fcntl.ioctl(descriptor, _GETFLAGS, bytes(8))[:4], sys.byteorder)
        finally:
            os.close(descriptor)
    except OSError:
        return 0
