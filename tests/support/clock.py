"""A wall clock that a test can step, for one process: libfaketime in front of the C library, read from a file.

The monotonic clock goes on as it is, as it does where a machine's wall clock is set.
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
        """Set the clock to be `seconds` ahead of the true one, behind it where negative."""
        # Replaced, not written: a reader must not find it empty.
        whole = self._file.with_suffix(".new")
        whole.write_text(f"{seconds:+d}s\n")
        os.replace(whole, self._file)


def library() -> Path | None:
    """Return libfaketime as Debian's package installs it, None where it is not installed."""
    for place in _PLACES:
        found = sorted(Path(place).glob("**/faketime/libfaketimeMT.so.1"))
        if found:
            return found[0]
    return None
