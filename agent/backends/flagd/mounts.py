"""Mounts of a single file: after the file is replaced by rename, such a mount still shows the old one.

https://www.kernel.org/doc/html/latest/filesystems/proc.html, section 3.5, has the format of `mountinfo`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_DELETED = "//deleted"
"""The kernel's mark of a mount whose file has no name any more, as after a replacement."""
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """`root` in the file system of `device` is mounted at `point`."""

    device: str
    root: str
    point: str


def parse(mountinfo: str) -> list[Mount]:
    """Return the mounts of a process, in the kernel's order; a later one hides an earlier one at the same point."""
    found = []
    for line in mountinfo.splitlines():
        words = line.split(" ")
        if len(words) > 4:
            device, root, point = (_ESCAPE.sub(lambda match: chr(int(match[1], 8)), word) for word in words[2:5])
            found.append(Mount(device, root, point))
    return found


def of_file(path: Path, proc: Path = Path("/proc")) -> list[str]:
    """Return where the file at `path`, or one that it replaced, is mounted as a single file.

    This covers this process, and containers on this machine as far as this user may read `/proc`. A result is for
    example "/etc/flagd/flags.json in process 4711".
    """
    here = parse(_text(proc / "self" / "mountinfo"))
    above = [mount for mount in here if _holds(mount.point, str(path))]
    home = max(above, key=lambda mount: len(mount.point), default=None)
    if home is None or home.point == str(path):
        # A mount at `path` itself: the file cannot be replaced at all, which `disk.obstacles` reports.
        return []
    inner = home.root.rstrip("/") + str(path)[len(home.point.rstrip("/")) :]
    found: dict[str, None] = {}
    for where, mounts in [("", here), *_elsewhere(proc)]:
        for mount in mounts:
            if mount.device == home.device and mount.root in (inner, inner + _DELETED):
                found[f"{mount.point}{where}"] = None
    return list(found)


def _elsewhere(proc: Path) -> Iterator[tuple[str, list[Mount]]]:
    """Yield the mounts of the other mount namespaces, from one process of each."""
    seen = {_namespace(proc / "self")}
    for process in sorted(proc.glob("[0-9]*"), key=lambda one: int(one.name)):
        namespace = _namespace(process)
        if namespace not in seen:
            seen.add(namespace)
            yield f" in process {process.name}", parse(_text(process / "mountinfo"))


def _namespace(process: Path) -> str:
    with suppress(OSError):
        return os.readlink(process / "ns" / "mnt")
    return ""


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
