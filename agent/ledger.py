"""The durable record of commands: what was found, what was done, and what of it has been told.

A command has a file of its own, named by its id: first the command and the snapshot, then a line a step, each an event
of the audit log. The file appears whole or not at all, and a line that a crash cut short counts as never written, so a
step is in the ledger if and only if it can be relied on. Nothing is deleted: it is what `flipback restore` works from.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.backends.contract import Snapshot
from agent.commands import Command
from agent.errors import LedgerError
from agent.events import (
    FLAG_ALREADY,
    FLAG_CONFLICT,
    FLAG_SNAPSHOT,
    FLAG_UNVERIFIED,
    FLAG_VERIFIED,
    FLAG_WRITTEN,
    Event,
)
from agent.logs import log_event

log = logging.getLogger(__name__)

_SUFFIX = ".jsonl"
_CLOCKS_APART_S = 300.0
"""Seconds by which the clocks of two executors that share a ledger may differ."""
_SETTLED = {FLAG_VERIFIED, FLAG_UNVERIFIED, FLAG_ALREADY, FLAG_CONFLICT}
_DECIDING = {FLAG_SNAPSHOT, *_SETTLED}


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="opened"):
    """The head of a file: the command as it arrived, and the flag as it was found."""

    command: Command
    raw: bytes
    snapshot: Snapshot


class Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="step"):
    event: Event


class Announced(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="announced"):
    """The first `count` events of the file are in the audit log."""

    count: int


@dataclass(slots=True)
class Entry:
    """What the ledger holds of a command."""

    opened: Opened
    events: list[Event]
    announced: int = 0

    @property
    def command(self) -> Command:
        return self.opened.command

    @property
    def settled(self) -> bool:
        """Is it known what became of the command? If not, a write may or may not have followed the snapshot.

        A snapshot that follows a conflict opens the entry again.
        """
        last = next((event for event in reversed(self.events) if event.type in _DECIDING), None)
        return last is not None and last.type in _SETTLED

    @property
    def pending(self) -> list[Event]:
        """Events that are not known to be in the audit log."""
        return self.events[self.announced :]

    def find(self, kind: str) -> Event | None:
        """The latest event of a type."""
        return next((event for event in reversed(self.events) if event.type == kind), None)


class Ledger:
    """The entries under one directory, made if need be. All calls block on the disk; LedgerError where it fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with disk_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._flips: dict[tuple[str, str], float] = {}
        self._settled: dict[str, float] = {}
        self._recent: dict[str, Entry] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        for name in self._names():
            for entry in self._readable(directory / name):
                self._remember(name, entry)
                for event in entry.events:
                    self._note(entry.command, event)

    @property
    def directory(self) -> Path:
        return self._directory

    def get(self, command: str) -> Entry | None:
        """The entry of a command's id. Raises LedgerError where its file is damaged."""
        path = self._path(command)
        with disk_errors(path):
            try:
                return _entry(path, path.read_bytes())
            except FileNotFoundError:
                return None

    def entries(self) -> Iterator[Entry]:
        """All entries, in no order; a damaged file is logged and left out."""
        for name in sorted(self._names()):
            yield from self._readable(self._directory / name)

    def changed(self) -> Iterator[Entry]:
        """Entries that were added or grew, by this process or another, since this was last called."""
        for path, stat in self._files():
            # Files only grow, but for one that was replaced by hand.
            stamp = stat.st_size, stat.st_mtime_ns
            if self._seen.get(path) != stamp:
                self._seen[path] = stamp
                yield from self._readable(Path(path))

    def recent(self, since: float) -> list[Entry]:
        """Entries with a step since then, in Unix seconds, by this process or another, and all that are not settled.

        Of an entry that is settled nothing is read again: what is done stays done, and 200 files read at each flip took
        up to 0.1 s of it. A directory that is listed is one call of the system, whatever stands in it.
        """
        since -= _CLOCKS_APART_S
        found = []
        for name in self._names():
            if self._settled.get(name, since) < since:
                self._recent.pop(name, None)
            elif name in self._recent:
                found.append(self._recent[name])
            else:
                for entry in self._readable(self._directory / name):
                    self._remember(name, entry)
                    found.append(entry)
        return [entry for entry in found if not entry.settled or entry.events[-1].time >= since]

    def _remember(self, name: str, entry: Entry) -> None:
        if entry.settled:
            self._settled[name] = entry.events[-1].time
            self._recent[name] = entry

    def open(self, command: Command, raw: bytes, snapshot: Snapshot, events: Sequence[Event]) -> tuple[Entry, bool]:
        """Record a command with its first events, durably: the entry and True, or the one that is there and False."""
        path = self._path(command.id)
        opened = Opened(command=command, raw=raw, snapshot=snapshot)
        content = _line(opened) + b"".join(_line(Step(event=event)) for event in events)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with disk_errors(path):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                # Unlike a rename, a link does not take the place of what another process has put there.
                path.hardlink_to(temporary)
            except FileExistsError:
                return _entry(path, path.read_bytes()), False
            finally:
                temporary.unlink()
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        for event in events:
            self._note(command, event)
        return Entry(opened, list(events)), True

    def append(self, entry: Entry, event: Event) -> None:
        """Add a step to the entry, durably; the entry itself has it even where the disk fails."""
        entry.events.append(event)
        if not entry.settled:
            name = self._path(entry.command.id).name
            self._settled.pop(name, None)
            self._recent.pop(name, None)
        self._note(entry.command, event)
        self._append(entry, Step(event=event))

    def announced(self, entry: Entry) -> None:
        """Note that all events of the entry are in the audit log."""
        entry.announced = len(entry.events)
        self._append(entry, Announced(count=entry.announced))

    def last_flip(self, environment: str, flag: str) -> float | None:
        """When flipback last wrote the flag by a command, in Unix seconds."""
        return self._flips.get((environment, flag))

    def _names(self) -> list[str]:
        with disk_errors(self._directory):
            # A glob takes a directory that may not be read for an empty one.
            return [name for name in os.listdir(self._directory) if name.endswith(_SUFFIX)]

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """All files with their state: one pass over the directory, in which nothing is ever deleted."""
        with disk_errors(self._directory), os.scandir(self._directory) as found:
            return [(file.path, file.stat()) for file in found if file.name.endswith(_SUFFIX)]

    def _readable(self, path: Path) -> Iterator[Entry]:
        try:
            with disk_errors(path):
                yield _entry(path, path.read_bytes())
        except LedgerError as error:
            log_event(log, "ledger.damaged", level=logging.ERROR, path=str(path), error=str(error))

    def _append(self, entry: Entry, part: Step | Announced) -> None:
        append_line(self._path(entry.command.id), part)

    def _note(self, command: Command, event: Event) -> None:
        if event.type == FLAG_WRITTEN:
            key = command.environment, command.flag
            self._flips[key] = max(event.time, self._flips.get(key, 0.0))

    def _path(self, command: str) -> Path:
        return self._directory / f"{command}{_SUFFIX}"


def append_line(path: Path, part: Opened | Step | Announced) -> None:
    """Add a line to a file, durably. Raises LedgerError where the disk fails."""
    with disk_errors(path), path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        # What a crash cut short stays behind as a line that is no line.
        whole = size == 0 or file.read(1) == b"\n"
        file.write(_line(part) if whole else b"\n" + _line(part))
        file.flush()
        os.fsync(file.fileno())


def lines(content: bytes) -> list[Opened | Step | Announced]:
    """What stands in a file; what a crash cut short does not."""
    parts = []
    for line in content.split(b"\n"):
        try:
            parts.append(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # The end of a write that a crash cut short, or the empty end of the file.
            continue
    return parts


def _entry(path: Path, content: bytes) -> Entry:
    parts = lines(content)
    if not parts or not isinstance(parts[0], Opened):
        raise LedgerError(
            f"{path} is damaged: it does not begin with a command; restore it from a backup or move it away"
        )
    entry = Entry(parts[0], [part.event for part in parts if isinstance(part, Step)])
    entry.announced = max((part.count for part in parts if isinstance(part, Announced)), default=0)
    return entry


def _line(part: Opened | Step | Announced) -> bytes:
    return msgspec.json.encode(part) + b"\n"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a LedgerError that names the file."""
    try:
        yield
    except OSError as error:
        raise LedgerError(f"the ledger cannot use {path}: {error.strerror or error}") from error


_decoder = msgspec.json.Decoder(Opened | Step | Announced)
