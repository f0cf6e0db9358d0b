"""Checks that the ledger's disk can take an entry, by writing one: permissions and free space do not show it."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

from agent.ledger.entry import disk_errors, sync_directory

TODO = "without its ledger the executor flips nothing: make room, give the user the right, or name another state_dir"

_BYTES = 16 * 1024
"""Larger than most entries."""
_PREFIX = ".probe-"
_LEFTOVER_S = 3600.0


class LedgerProbe:
    """Writes, syncs, links and removes a file in the ledger's `directory`, as an entry is written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A random name: executors may share the directory, and process ids repeat between containers.
        self._name = f"{_PREFIX}{uuid.uuid4().hex}"
        self._swept = False

    def write(self) -> None:
        """Write the file and remove it. Raises LedgerError if the disk fails. Blocks."""
        with disk_errors(self._directory):
            self._sweep()
            _write(self._directory, self._name)

    def _sweep(self) -> None:
        """Remove files that a crashed process left behind."""
        if self._swept:
            return
        for path in self._directory.glob(f"{_PREFIX}*"):
            # Another process may remove it at the same time.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    path.unlink()
        self._swept = True


def probe_state(directory: Path) -> None:
    """Probe `directory`, or, if it does not exist yet, a temporary directory in its nearest existing parent.

    Raises LedgerError if the disk fails, or if the directory cannot be made. Blocks.
    """
    with disk_errors(directory):
        if directory.is_dir():
            LedgerProbe(directory).write()
            return
        there = next(place for place in directory.absolute().parents if os.path.lexists(place))
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=there))
        try:
            _write(made, _PREFIX)
        finally:
            made.rmdir()


def _write(directory: Path, name: str) -> None:
    """Write, sync and link a file as an entry is, and remove it. Raises OSError."""
    path, linked = directory / name, directory / f"{name}.linked"
    try:
        with path.open("wb") as file:
            file.write(bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        linked.hardlink_to(path)
        sync_directory(directory)
    finally:
        path.unlink(missing_ok=True)
        linked.unlink(missing_ok=True)
