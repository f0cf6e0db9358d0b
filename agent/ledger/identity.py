"""The id of a ledger, a file in its directory, by which executors see whether they share one."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from pathlib import Path

from agent.errors import LedgerError
from agent.heartbeats.heartbeat import Member, alive
from agent.ledger.entry import disk_errors, link_new
from streams.condition import shortened

_NAME = ".id"
_ID = re.compile(rb"[0-9a-f]{32}")


def identity(directory: Path) -> str | None:
    """Return the id of the ledger in `directory`, made if it has none; None if the disk fails. Blocks."""
    try:
        with disk_errors(directory):
            return _read(directory / _NAME) or _made(directory)
    except LedgerError:
        # LedgerProbe reports what is wrong with the disk.
        return None


def separate_ledgers(members: Iterable[Member]) -> str | None:
    """Warn a person if the executors that are alive have separate ledgers; None if they share one.

    It stops no flip, so it is no obstacle. An executor that names no ledger is left out.
    """
    executors = [member for member in alive(members, "executor") if member.beat.ledger is not None]
    if len({member.beat.ledger for member in executors}) < 2:
        return None
    names = shortened([member.beat.name for member in executors])
    return (
        f"the executors {names} have separate ledgers: each counts the limits of `automation` and the cooldown for "
        "itself, and `halt`, `resume`, `restore` and `rollback --direct` reach only the one on whose machine they run; "
        "give all one `state_dir` on a common disk, or run these commands on each machine"
    )


def _read(path: Path) -> str | None:
    try:
        found = path.read_bytes()[:64].strip()
    except FileNotFoundError:
        return None
    return found.decode() if _ID.fullmatch(found) else None


def _made(directory: Path) -> str | None:
    """Make the id and read it: if executors start together, the first makes it and the others read it."""
    path = directory / _NAME
    link_new(path, uuid.uuid4().hex.encode())
    return _read(path)
