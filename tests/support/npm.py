"""Packages from npm for the tests, kept in the user's cache."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support.downloads import NotBrought, bring, kept

FILES = ("package.json", "package-lock.json", ".npmrc")


class NpmUnavailable(Exception):
    """This machine cannot install the packages; the message names what is missing."""


def installed(source: Path, files: Sequence[str] = FILES) -> Path:
    """A directory with the packages of the lock file in `source`, installed without running their scripts."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        raise NpmUnavailable(f"{' and '.join(missing)} not installed")
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in files)).hexdigest()[:8]

    def make(fresh: Path) -> None:
        for name in files:
            shutil.copy(source / name, fresh)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        bring(command, fresh, f"the packages of {source.name}")

    try:
        return kept(f"npm-{source.name}-{digest}", make)
    except NotBrought as error:
        raise NpmUnavailable(str(error)) from error
