"""The durable record of commands: what was found, what was done, and what of it has been told.

A command has a file of its own, named by its id: first the command and the snapshot, then a line a step, each an event
of the audit log. The file appears whole or not at all, and a line that a crash cut short counts as never written, so a
step is in the ledger if and only if it can be relied on. Nothing is deleted: it is what `flipback restore` works from.

A command that came to nothing and is ordered again gets another file, `<id>.<round>.jsonl`, with a snapshot of its own.
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
    """The entries under one directory, made if need be. All calls block on the disk; LedgerError where it fails."""

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
        """The newest entry of a command's id. Raises LedgerError where its file is damaged."""
        newest, number = None, 0
        while (found := self.round(command, number)) is not None:
            newest, number = found, number + 1
        return newest

    def round(self, command: str, number: int) -> Entry | None:
        """The entry of one round of a command. Raises LedgerError where its file is damaged."""
        path = self._path(command, number)
        with disk_errors(path):
            try:
                return read_entry(path, path.read_bytes())
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
        for event in entry.events:
            self._note(entry.command, event)
        if entry.settled:
            self._settled[name] = entry.events[-1].time
            self._recent[name] = entry

    def open(
        self, command: Command, raw: bytes, snapshot: Snapshot, events: Sequence[Event], number: int = 0
    ) -> tuple[Entry, bool]:
        """Record a command with its first events, durably: the entry and True, or the one that is there and False.

        `number` is the round: 0 at first, one more than that of the entry that came to nothing.
        """
        path = self._path(command.id, number)
        opened = Opened(command=command, raw=raw, snapshot=snapshot)
        content = encoded(opened) + b"".join(encoded(Step(event=event)) for event in events)
        with disk_errors(path):
            if not link_new(path, content):
                return read_entry(path, path.read_bytes()), False
        return Entry(opened, list(events), round=number), True

    def append(self, entry: Entry, event: Event) -> None:
        """Add a step to the entry, durably; the entry itself has it even where the disk fails."""
        entry.events.append(event)
        self._note(entry.command, event)
        self._append(entry, Step(event=event))

    def announced(self, entry: Entry) -> None:
        """Note that all events of the entry are in the audit log."""
        entry.announced = len(entry.events)
        self._append(entry, Announced(count=entry.announced))

    def mark(self, entry: Entry, state: Literal["maybe", "never"]) -> None:
        """Note, durably, whether a write may have been sent; does nothing where that is noted already.

        The file does not grow by it, however often a command is tried.
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
        """When flipback wrote the flag by commands, this process or another, in Unix seconds as noted; the newest last.

        At most the newest hundred.
        """
        for name in self._names():
            if name not in self._settled:
                for entry in self._readable(self._directory / name):
                    self._remember(name, entry)
        return sorted(self._flips.get((environment, flag), {}).values())

    def _names(self) -> list[str]:
        with disk_errors(self._directory):
            # A glob takes a directory that may not be read for an empty one.
            return [name for name in os.listdir(self._directory) if name.endswith(SUFFIX)]

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """All files with their state: one pass over the directory, in which nothing is ever deleted."""
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
