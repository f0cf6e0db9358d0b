"""The durable record of commands: what was found, what was done, and which events have been published.

Each command has a file, named by its id: first the command and the snapshot, then one line per step, each an event of
the audit log. The file appears whole or not at all, and a line that a crash cut short counts as never written: a step
is in the ledger if and only if it can be relied on. Nothing is deleted, because `flipback restore` reads it.

A command that ended without a write and is issued again gets another file, `<id>.<round>.jsonl`, with its own snapshot.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from agent.backends.contract import Snapshot
from agent.commands.command import Command
from agent.errors import LedgerError
from agent.events.cloudevents import FLAG_WRITTEN, Event
from agent.ledger.entry import (
    SUFFIX,
    Announced,
    Entry,
    Opened,
    Step,
    Writing,
    append_line,
    disk_errors,
    encoded,
    link_new,
    read_entry,
)
from agent.logs.setup import log_event

log = logging.getLogger(__name__)

_CLOCKS_APART_S = 300.0
"""Seconds by which the clocks of two executors that share a ledger may differ."""
_MOST_FLIPS = 100


class Ledger:
    """The entries under one directory, created if missing. Calls block on the disk; LedgerError if it fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with disk_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._flips: dict[tuple[str, str], dict[str, float]] = {}
        self._settled: dict[str, float] = {}
        self._recent: dict[str, Entry] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        for name in self._names():
            for entry in self._readable(directory / name):
                self._remember(name, entry)

    @property
    def directory(self) -> Path:
        return self._directory

    def get(self, command: str) -> Entry | None:
        """Return the newest entry of a command's id. Raises LedgerError if its file is damaged."""
        newest, number = None, 0
        while (found := self.round(command, number)) is not None:
            newest, number = found, number + 1
        return newest

    def round(self, command: str, number: int) -> Entry | None:
        """Return the entry of one round of a command. Raises LedgerError if its file is damaged."""
        path = self._path(command, number)
        with disk_errors(path):
            try:
                return read_entry(path, path.read_bytes())
            except FileNotFoundError:
                return None

    def entries(self) -> Iterator[Entry]:
        """Read all entries, in no order; a damaged file is logged and left out."""
        for name in sorted(self._names()):
            yield from self._readable(self._directory / name)

    def changed(self) -> Iterator[Entry]:
        """Read the entries that this process or another added or extended since the last call."""
        for path, stat in self._files():
            # Files only grow, unless one was replaced by hand.
            stamp = stat.st_size, stat.st_mtime_ns
            if self._seen.get(path) != stamp:
                self._seen[path] = stamp
                yield from self._readable(Path(path))

    def recent(self, since: float) -> list[Entry]:
        """Return the entries with a step after `since` (Unix seconds), by any process, and all that are not settled.

        A settled entry does not change and is not read again: reading 200 files at each flip took up to 0.1 s. Listing
        the directory is one system call, whatever its size.
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
        for event in entry.events:
            self._note(entry.command, event)
        if entry.settled:
            self._settled[name] = entry.events[-1].time
            self._recent[name] = entry

    def open(
        self, command: Command, raw: bytes, snapshot: Snapshot, events: Sequence[Event], number: int = 0
    ) -> tuple[Entry, bool]:
        """Record a command with its first events, durably; return the entry and True, or the existing one and False.

        `number` is the round: 0 at first, then one more than that of the entry that ended without a write.
        """
        path = self._path(command.id, number)
        opened = Opened(command=command, raw=raw, snapshot=snapshot)
        content = encoded(opened) + b"".join(encoded(Step(event=event)) for event in events)
        with disk_errors(path):
            if not link_new(path, content):
                return read_entry(path, path.read_bytes()), False
        return Entry(opened, list(events), round=number), True

    def append(self, entry: Entry, event: Event) -> None:
        """Add a step to the entry, durably; the entry in memory has it even if the disk fails."""
        entry.events.append(event)
        self._note(entry.command, event)
        self._append(entry, Step(event=event))

    def announced(self, entry: Entry) -> None:
        """Record that all events of the entry are in the audit log."""
        entry.announced = len(entry.events)
        self._append(entry, Announced(count=entry.announced))

    def mark(self, entry: Entry, state: Literal["maybe", "never"]) -> None:
        """Record, durably, whether a write may have been sent; do nothing if that is recorded already.

        The line is overwritten: the file does not grow, however often a command is tried.
        """
        if entry.unwritten == (state == "never"):
            return
        path, begin = self._file(entry), b'\n{"line":"writing","state":"'
        with disk_errors(path):
            at = path.read_bytes().rfind(begin)
            if at < 0:
                append_line(path, Writing(state=state))
            else:
                with path.open("rb+") as file:
                    file.seek(at + len(begin))
                    file.write(state.encode())
                    file.flush()
                    os.fsync(file.fileno())
        entry.unwritten = state == "never"

    def flips(self, environment: str, flag: str) -> list[float]:
        """Return when commands of any process wrote the flag, in Unix seconds as recorded; the newest last.

        At most the newest hundred.
        """
        for name in self._names():
            if name not in self._settled:
                for entry in self._readable(self._directory / name):
                    self._remember(name, entry)
        return sorted(self._flips.get((environment, flag), {}).values())

    def _names(self) -> list[str]:
        with disk_errors(self._directory):
            # A glob would find nothing in a directory that may not be read, instead of failing.
            return [name for name in os.listdir(self._directory) if name.endswith(SUFFIX)]

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """All files with their stat, in one pass; files are never deleted meanwhile."""
        with disk_errors(self._directory), os.scandir(self._directory) as found:
            return [(file.path, file.stat()) for file in found if file.name.endswith(SUFFIX)]

    def _readable(self, path: Path) -> Iterator[Entry]:
        try:
            with disk_errors(path):
                yield read_entry(path, path.read_bytes())
        except LedgerError as error:
            log_event(log, "ledger.damaged", level=logging.ERROR, path=str(path), error=str(error))

    def _append(self, entry: Entry, part: Step | Announced) -> None:
        append_line(self._file(entry), part)

    def _note(self, command: Command, event: Event) -> None:
        if event.type == FLAG_WRITTEN:
            noted = self._flips.setdefault((command.environment, command.flag), {})
            noted[event.id] = event.time
            if len(noted) > _MOST_FLIPS:
                del noted[min(noted, key=noted.__getitem__)]

    def _file(self, entry: Entry) -> Path:
        return self._path(entry.command.id, entry.round)

    def _path(self, command: str, number: int) -> Path:
        return self._directory / (f"{command}.{number}{SUFFIX}" if number else f"{command}{SUFFIX}")
