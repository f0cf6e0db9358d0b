"""One command in the ledger: the lines of its file, and the entry that is read from them.

A line that a crash cut short counts as never written.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from agent.backends.contract import Snapshot
from agent.commands.command import Command
from agent.errors import LedgerError
from agent.events.cloudevents import (
    FLAG_ALREADY,
    FLAG_CONFLICT,
    FLAG_NOT_WRITTEN,
    FLAG_UNRESOLVED,
    FLAG_UNVERIFIED,
    FLAG_VERIFIED,
    FLAG_WRITTEN,
    Event,
)

SUFFIX = ".jsonl"
_SETTLED = {FLAG_VERIFIED, FLAG_UNVERIFIED, FLAG_ALREADY, FLAG_CONFLICT, FLAG_NOT_WRITTEN, FLAG_UNRESOLVED}
_UNDONE = {FLAG_CONFLICT, FLAG_NOT_WRITTEN, FLAG_UNRESOLVED}


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="opened"):
    """The first line of a file: the command as it arrived, and the flag as it was found."""

    command: Command
    raw: bytes
    snapshot: Snapshot


class Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="step"):
    event: Event


class Announced(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="announced"):
    """The first `count` events of the file are in the audit log."""

    count: int


class Writing(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="writing"):
    """Whether a write may have been sent; without this line it may. It is changed in place: both words have 5 bytes."""

    state: Literal["maybe", "never"]


@dataclass(slots=True)
class Entry:
    """The ledger's record of one round of a command: a command that was begun again has several.

    `unwritten`: every attempt certainly failed, so that the flag has nothing of it.
    """

    opened: Opened
    events: list[Event]
    announced: int = 0
    unwritten: bool = False
    round: int = 0

    @property
    def command(self) -> Command:
        return self.opened.command

    @property
    def settled(self) -> bool:
        """Has the command an outcome? If not, a write may or may not have followed the snapshot."""
        return any(event.type in _SETTLED for event in self.events)

    @property
    def undone(self) -> bool:
        """Did it end without a known write? Then a fresh command may begin another round."""
        ends = [event.type for event in self.events if event.type in _SETTLED]
        return bool(ends) and ends[-1] in _UNDONE and self.find(FLAG_WRITTEN) is None

    @property
    def pending(self) -> list[Event]:
        """The events that are not known to be in the audit log."""
        return self.events[self.announced :]

    def find(self, kind: str) -> Event | None:
        """Return the latest event of a type."""
        return next((event for event in reversed(self.events) if event.type == kind), None)


def append_line(path: Path, part: Opened | Step | Announced | Writing) -> None:
    """Add a line to a file, durably. Raises LedgerError if the disk fails."""
    with disk_errors(path), path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        # What a crash cut short stays in the file, as a line that does not decode.
        whole = size == 0 or file.read(1) == b"\n"
        file.write(encoded(part) if whole else b"\n" + encoded(part))
        file.flush()
        os.fsync(file.fileno())


def lines(content: bytes) -> list[Opened | Step | Announced | Writing]:
    """Return the whole lines of a file, without those that a crash cut short."""
    parts = []
    for line in content.split(b"\n"):
        try:
            parts.append(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # The end of a write that a crash cut short, or the empty end of the file.
            continue
    return parts


def read_entry(path: Path, content: bytes) -> Entry:
    """Return the entry in the content of its file. Raises LedgerError if that does not begin with a command."""
    parts = lines(content)
    if not parts or not isinstance(parts[0], Opened):
        raise LedgerError(
            f"{path} is damaged: it does not begin with a command; restore it from a backup or move it away"
        )
    entry = Entry(parts[0], [part.event for part in parts if isinstance(part, Step)])
    entry.announced = max((part.count for part in parts if isinstance(part, Announced)), default=0)
    entry.unwritten = any(isinstance(part, Writing) and part.state == "never" for part in parts)
    number = path.name.removesuffix(SUFFIX).rpartition(".")[2]
    entry.round = int(number) if number.isdecimal() else 0
    return entry


def encoded(part: Opened | Step | Announced | Writing) -> bytes:
    return msgspec.json.encode(part) + b"\n"


def link_new(path: Path, content: bytes) -> bool:
    """Make a file with its content, durably; return False if it exists. Raises OSError. Blocks."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link does not replace a file that another process has made.
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        # Failed attempts must not fill the disk.
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


UNUSABLE = "the ledger cannot use"
"""How the errors of the ledger's disk begin: without that disk nothing is flipped."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a LedgerError that names the file."""
    try:
        yield
    except OSError as error:
        raise LedgerError(f"{UNUSABLE} {path}: {error.strerror or error}") from error


_decoder = msgspec.json.Decoder(Opened | Step | Announced | Writing)
