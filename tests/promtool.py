"""Prometheus' own promtool: the one on the PATH, else the one of Debian's package, unpacked into the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TIMEOUT = 300.0  # seconds, for 19 MB of package


class PromtoolUnavailable(Exception):
    """This machine cannot run promtool; the message says what is missing."""


def promtool() -> Path:
    """Where it is. Raises PromtoolUnavailable."""
    found = shutil.which("promtool")
    if found:
        return Path(found)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flipback-tests"
    kept = cache / "promtool"
    if kept.exists():
        return kept
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise PromtoolUnavailable(f"promtool not on the PATH, and no {' and '.join(missing)} to bring it")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="incomplete-") as directory:
        try:
            _run(["apt-get", "download", "-qq", "prometheus"], directory)
            (package,) = Path(directory).glob("prometheus_*.deb")
            _run(["dpkg", "-x", package.name, "unpacked"], directory)
        except (subprocess.SubprocessError, ValueError) as error:
            raise PromtoolUnavailable(f"Debian's package prometheus could not be brought: {error}") from error
        # Only the program, and by a rename: another run may have been faster, and what it made is the same.
        (Path(directory) / "unpacked" / "usr" / "bin" / "promtool").rename(kept)
    return kept


def _run(command: list[str], directory: str) -> None:
    subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=True)
