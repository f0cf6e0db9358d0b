"""Detects that a role has stopped reading, so that the process ends and its supervisor starts another.

Faust's consumers have been reported to stop without an error after a broker was unavailable (faust-streaming/faust
issues 175, 523, 532).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streams.condition import shortened
from streams.kafka.driver import App
from streams.slices import Source

STUCK_AFTER = 30.0
"""Seconds without progress, while records wait, after which a role counts as stuck."""

SILENT_AFTER = 10.0
"""Seconds without a response of any broker after which a role is no longer ready. A fetch is answered every 50 ms, and
a standby's heartbeat six times in its session timeout (6 s)."""

UNOWNED_AFTER = 10.0
"""Seconds after which it is reported that the role ignores an assigned partition; a seek takes less than one."""


def silence(app: App, now: float) -> str | None:
    """A message with how long no broker has answered, if that is too long; else None. `now` is in monotonic seconds."""
    answered = app.reading.answered_at
    # A standby sends only heartbeats, and with a long session timeout only few.
    if answered is None or now - answered <= max(SILENT_AFTER, 2 * app.conf.broker_heartbeat_interval):
        return None
    return f"no answer from the brokers for {now - answered:.0f} s"


def assigned(app: App) -> list[Source] | None:
    """The partitions that are assigned to the app; None before the first assignment."""
    given: Any = app._assignment
    return None if given is None else sorted(Source(tp.topic, tp.partition) for tp in given)


class Liveness:
    """Watches the reading of one app; `name` is the name in the messages. Times are monotonic seconds.

    `owned` returns the partitions whose records the role accepts; None for a role that accepts all.
    """

    def __init__(self, app: App, name: str, owned: Callable[[], Iterable[Source]] | None = None) -> None:
        self._app = app
        self._name = name
        self._owned = owned
        self._unowned_at: float | None = None
        self._seen: dict[object, int | None] = {}
        self._moved_at: float | None = None

    def waiting(self) -> dict[str, int]:
        """How many records wait in each assigned partition; partitions without any are left out."""
        consumer: Any = self._app.consumer
        behind: dict[str, int] = {}
        for tp in consumer.assignment():
            highwater = consumer.highwater(tp)
            read = consumer._read_offset[tp]
            if highwater and read is not None and highwater > read + 1:
                behind[f"{tp.topic}/{tp.partition}"] = highwater - read - 1
        return behind

    def reads(self, now: float) -> set[Source]:
        """The partitions that this process reads; empty while no broker answers."""
        return set() if silence(self._app, now) is not None else set(assigned(self._app) or ())

    def unowned(self, now: float) -> str | None:
        """A message that names assigned partitions whose records the role has dropped for UNOWNED_AFTER; else None."""
        if self._owned is None:
            return None
        consumer: Any = self._app.consumer
        left = {Source(tp.topic, tp.partition) for tp in consumer.assignment()} - set(self._owned())
        # While no broker answers, the assignment is not up to date.
        if not left or silence(self._app, now) is not None:
            self._unowned_at = None
            return None
        if self._unowned_at is None:
            self._unowned_at = now
        since = now - self._unowned_at
        if since < UNOWNED_AFTER:
            return None
        names = shortened([f"{source.topic}/{source.partition}" for source in sorted(left)])
        return f"{self._name}: {names} is assigned to this process, which has not worked on it for {since:.0f} s"

    def stuck(self, now: float) -> str | None:
        """Why the process should end; None while all is well. Call it about once a second."""
        unowned = self.unowned(now)
        if unowned is not None and self._unowned_at is not None and now - self._unowned_at >= STUCK_AFTER:
            return unowned
        consumer: Any = self._app.consumer
        positions = dict(consumer._read_offset)
        waiting = self.waiting()
        if self._moved_at is None or positions != self._seen or not waiting:
            self._seen, self._moved_at = positions, now
        idle = now - self._moved_at
        if idle <= STUCK_AFTER:
            return None
        partitions = ", ".join(sorted(waiting))
        return f"{self._name}: {sum(waiting.values())} records wait in {partitions} and none was read for {idle:.0f} s"
