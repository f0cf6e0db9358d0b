"""Downloads packages that the tests need, and keeps them in the user's cache for the next run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

TIMEOUT = 600.0
"""Seconds for one download: 320 MB of Unleash take 20 s on a fast line."""


class NotBrought(Exception):
    """The download failed; the message gives the reason."""


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The cached directory of that name. `make` fills it the first time; it appears complete or not at all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flipback-tests"
    directory = cache / name
    if directory.is_dir():
        return directory
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="incomplete-") as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        make(fresh)
        # Another run may have created it first, with the same content.
        with contextlib.suppress(OSError):
            fresh.rename(directory)
    return directory


def bring(command: Sequence[str], directory: Path, what: str) -> None:
    """Run a package manager in a directory. Raises NotBrought, with the beginning of its output in the message."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotBrought(f"{command[0]} did not bring {what} in {TIMEOUT:.0f} s") from error
    if done.returncode:
        said = next((line for line in done.stdout.splitlines() if "ERR" in line.upper()), done.stdout)
        raise NotBrought(f"{command[0]} could not bring {what}: {' '.join(said.split())[:300] or 'no message'}")
