"""Packages from npm for the tests, kept under the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TIMEOUT = 300.0
"""Seconds for `npm ci`; firebase-admin without what is optional takes 5 s with a fast registry."""

_FILES = ("package.json", "package-lock.json", ".npmrc")


class NpmUnavailable(Exception):
    """This machine cannot bring the packages; the message says what is missing."""


def installed(source: Path) -> Path:
    """A directory with the packages of the lock file in `source`. What they would run when installed is not run."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        raise NpmUnavailable(f"{' and '.join(missing)} not installed")
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in _FILES)).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flipback-tests"
    packages = cache / f"npm-{digest}"
    if packages.is_dir():
        return packages
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="incomplete-") as temporary:
        fresh = Path(temporary) / "packages"
        fresh.mkdir()
        for name in _FILES:
            shutil.copy(source / name, fresh)
        try:
            done = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                cwd=fresh,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NpmUnavailable(f"npm did not bring the packages in {TIMEOUT:.0f} s") from error
        if done.returncode:
            raise NpmUnavailable(f"npm could not bring the packages: {' '.join(done.stdout.split())[:300]}")
        # Another run may have been faster; what it made is the same.
        with contextlib.suppress(OSError):
            fresh.rename(packages)
    return packages
