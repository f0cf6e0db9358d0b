"""Whether flipback may act by itself: halted by its own limits or by a person, until a person resumes it.

It is a file beside the ledger, a line a halt or resumption, each an event of the audit log, so that it outlives the
process and needs neither Kafka nor a running agent. A running executor tells what others have added. Where several
executors share the directory it holds for all of them.
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
"""Who halted it, where no person did."""

LOCKED_WITHIN_S = 0.8


class Automation:
    """The switch in `state_dir`, made if need be. All calls block on the disk; LedgerError where it fails."""

    def __init__(self, state_dir: Path) -> None:
        with disk_errors(state_dir):
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = state_dir / FILE_NAME
        self._lock = state_dir / f".{FILE_NAME}.lock"
        self._own = threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other thread and process out that takes this lock.

        Raises LedgerError where another holds it for longer than a step of the ledger may take.
        """
        end = time.monotonic() + LOCKED_WITHIN_S
        # Threads of this process need not ask every 5 ms.
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
        """The newest halt or resumption."""
        told, _ = self._read()
        return told[-1] if told else None

    def halted(self) -> Event | None:
        """The halt that is in force."""
        last = self.last()
        return last if last is not None and last.type == events.AUTOMATION_HALTED else None

    def halt(self, reason: str, *, by: str, at: float, **data: Any) -> Event | None:
        """Halt; None where it is halted already. To be called with the lock held."""
        if self.halted() is not None:
            return None
        todo = "find out why; then `flipback resume -c FILE --reason REASON`. A person's rollback works all the same"
        return self._add(events.AUTOMATION_HALTED, at, {"reason": reason, "by": by, **data, "todo": todo})

    def resume(self, reason: str, *, by: str, at: float) -> Event | None:
        """Resume; None where it is not halted. To be called with the lock held."""
        halted = self.halted()
        if halted is None:
            return None
        data = {"reason": reason, "by": by, "halted_at": halted.time, "halted_because": halted.data["reason"]}
        return self._add(events.AUTOMATION_RESUMED, at, data)

    def pending(self) -> tuple[int, list[Event]]:
        """How many events are in the audit log, and those that are not known to be."""
        told, announced = self._read()
        return announced, told[announced:]

    def announced(self, count: int) -> None:
        """Note that the first `count` events of the file are in the audit log."""
        append_line(self._path, Announced(count=count))

    def _add(self, kind: str, at: float, data: dict[str, Any]) -> Event:
        number = len(self._read()[0])
        name = events.event_id(kind, str(number), str(at), str(data["by"]), str(data["reason"]))
        event = Event(type=kind, subject=events.AUTOMATION, data=data, id=name, time=at)
        append_line(self._path, Step(event=event))
        return event

    def _read(self) -> tuple[list[Event], int]:
        """All events, and how many of them have been told."""
        with disk_errors(self._path):
            try:
                content = self._path.read_bytes()
            except FileNotFoundError:
                return [], 0
        found = lines(content)
        announced = [part.count for part in found if isinstance(part, Announced)]
        return [part.event for part in found if isinstance(part, Step)], max(announced, default=0)


def words(halt: Event) -> str:
    """Why nothing is done, for a person."""
    return (
        f"the automation was halted by {halt.data['by']}: {halt.data['reason']}; it stays so until "
        "`flipback resume -c FILE --reason REASON`"
    )
