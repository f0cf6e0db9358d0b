"""A wall clock that a test can step, for one process: libfaketime overrides the C library and reads a file.

The monotonic clock is not changed, as on a machine whose wall clock is set.
"""

from __future__ import annotations

import os
from pathlib import Path

_PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


class Clock:
    """The clock of the processes that are started with `environment`."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set the clock `seconds` ahead of the true one, or behind it if negative."""
        # Replace the file: a reader must not find it empty.
        whole = self._file.with_suffix(".new")
        whole.write_text(f"{seconds:+d}s\n")
        os.replace(whole, self._file)


def library() -> Path | None:
    """The path of libfaketime as Debian's package installs it, or None if it is not installed."""
    for place in _PLACES:
        found = sorted(Path(place).glob("**/faketime/libfaketimeMT.so.1"))
        if found:
            return found[0]
    return None
