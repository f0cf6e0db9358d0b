"""Finds Prometheus' promtool: on the PATH, else in Debian's package, which is unpacked into the user's cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.downloads import NotBrought, bring, kept


class PromtoolUnavailable(Exception):
    """This machine cannot run promtool; the message names what is missing."""


def promtool() -> Path:
    """The path of promtool. Raises PromtoolUnavailable."""
    found = shutil.which("promtool")
    if found:
        return Path(found)
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise PromtoolUnavailable(f"promtool not on the PATH, and no {' and '.join(missing)} to bring it")
    try:
        return kept("prometheus-debian", _unpack) / "usr" / "bin" / "promtool"
    except NotBrought as error:
        raise PromtoolUnavailable(str(error)) from error


def _unpack(fresh: Path) -> None:
    what = "Debian's package prometheus"
    bring(["apt-get", "download", "-qq", "prometheus"], fresh, what)
    (package,) = fresh.glob("prometheus_*.deb")
    bring(["dpkg", "-x", package.name, "."], fresh, what)
    package.unlink()
