"""Can the ledger's disk take an entry now? Asked by writing one, because rights and free space do not tell."""

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
"""More than most entries take."""
_PREFIX = ".probe-"
_LEFTOVER_S = 3600.0


class LedgerProbe:
    """Writes, syncs, links and removes a file in the ledger's `directory`, as an entry is written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A name of its own: executors may share the directory, and process ids repeat between containers.
        self._name = f"{_PREFIX}{uuid.uuid4().hex}"
        self._swept = False

    def write(self) -> None:
        """Raises LedgerError where the disk fails. Blocks."""
        with disk_errors(self._directory):
            self._sweep()
            _write(self._directory, self._name)

    def _sweep(self) -> None:
        """Take away what a crash of any process has left behind."""
        if self._swept:
            return
        for path in self._directory.glob(f"{_PREFIX}*"):
            # Another process may be taking it away at the same time.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    path.unlink()
        self._swept = True


def probe_state(directory: Path) -> None:
    """As a probe of a ledger in `directory`, which may not be there yet: then in a directory made beside it for that.

    Raises LedgerError where the disk fails, or where the directory cannot be made. Blocks.
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
    """Write, sync and link a file as an entry is, and take it away. Raises OSError."""
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
