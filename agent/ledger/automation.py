"""Whether flipback may act by itself: halted by its own limits or by a person, until a person resumes it.

The state is a file beside the ledger with one line for each halt or resumption, each an event of the audit log. It
outlives the process and needs neither Kafka nor a running agent. A running executor publishes what others have added.
If several executors share the directory, the state holds for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import LedgerError
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.ledger.entry import Announced, Step, append_line, disk_errors, lines
from agent.storage.file_lock import taken

FILE_NAME = "automation.log"
ITSELF = "flipback"
"""Who halted it, if no person did."""

LOCKED_WITHIN_S = 0.8


class Automation:
    """The switch in `state_dir`, created if missing. All calls block on the disk, and raise LedgerError if it fails."""

    def __init__(self, state_dir: Path) -> None:
        with disk_errors(state_dir):
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = state_dir / FILE_NAME
        self._lock = state_dir / f".{FILE_NAME}.lock"
        self._own = threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock against all other threads and processes.

        Raises LedgerError if another holds it for longer than a step of the ledger may take.
        """
        end = time.monotonic() + LOCKED_WITHIN_S
        # Threads of this process wait here, instead of polling the file lock every 5 ms.
        if not self._own.acquire(timeout=LOCKED_WITHIN_S):
            raise LedgerError(f"a flip under way holds {self._lock} and does not let go; is its disk stuck?")
        try:
            with disk_errors(self._lock), self._lock.open("ab") as file:
                while not taken(file):
                    if time.monotonic() > end:
                        raise LedgerError(f"another process holds {self._lock} and does not let go; is it stopped?")
                    time.sleep(0.005)
                yield
        finally:
            self._own.release()

    def last(self) -> Event | None:
        """Return the newest halt or resumption."""
        recorded, _ = self._read()
        return recorded[-1] if recorded else None

    def halted(self) -> Event | None:
        """Return the halt that is in force, if any."""
        last = self.last()
        return last if last is not None and last.type == events.AUTOMATION_HALTED else None

    def halt(self, reason: str, *, by: str, at: float, **data: Any) -> Event | None:
        """Halt; return None if it is already halted. The caller holds the lock."""
        if self.halted() is not None:
            return None
        todo = "find out why; then `flipback resume -c FILE --reason REASON`. A person's rollback works all the same"
        return self._add(events.AUTOMATION_HALTED, at, {"reason": reason, "by": by, **data, "todo": todo})

    def resume(self, reason: str, *, by: str, at: float) -> Event | None:
        """Resume; return None if it is not halted. The caller holds the lock."""
        halted = self.halted()
        if halted is None:
            return None
        data = {"reason": reason, "by": by, "halted_at": halted.time, "halted_because": halted.data["reason"]}
        return self._add(events.AUTOMATION_RESUMED, at, data)

    def pending(self) -> tuple[int, list[Event]]:
        """Return how many events are in the audit log, and the events that are not known to be there."""
        recorded, announced = self._read()
        return announced, recorded[announced:]

    def announced(self, count: int) -> None:
        """Record that the first `count` events of the file are in the audit log."""
        append_line(self._path, Announced(count=count))

    def _add(self, kind: str, at: float, data: dict[str, Any]) -> Event:
        number = len(self._read()[0])
        name = events.event_id(kind, str(number), str(at), str(data["by"]), str(data["reason"]))
        event = Event(type=kind, subject=events.AUTOMATION, data=data, id=name, time=at)
        append_line(self._path, Step(event=event))
        return event

    def _read(self) -> tuple[list[Event], int]:
        """Return all events, and how many of them have been published."""
        with disk_errors(self._path):
            try:
                content = self._path.read_bytes()
            except FileNotFoundError:
                return [], 0
        found = lines(content)
        announced = [part.count for part in found if isinstance(part, Announced)]
        return [part.event for part in found if isinstance(part, Step)], max(announced, default=0)
