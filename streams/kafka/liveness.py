"""Is a role still reading? Faust's consumers have been reported to stop silently after a broker was away
(faust-streaming/faust issues 175, 523, 532): then the process must end, so that its supervisor starts another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streams.condition import shortened
from streams.kafka.driver import App
from streams.slices import Source

STUCK_AFTER = 30.0
"""Seconds without progress, while records wait, after which a role counts as stuck."""


SILENT_AFTER = 10.0
"""Seconds without an answer of any broker after which a role cannot be said to do its work. A fetch is answered every
50 ms, and a standby's heartbeat six times in its session timeout (6 s)."""


def silence(app: App, now: float) -> str | None:
    """For how long no broker has answered the app's consumer, where that is too long; `now` in monotonic seconds."""
    answered = app.reading.answered_at
    # A standby with a long session timeout is heard of as seldom.
    if answered is None or now - answered <= max(SILENT_AFTER, 2 * app.conf.broker_heartbeat_interval):
        return None
    return f"no answer from the brokers for {now - answered:.0f} s"


def assigned(app: App) -> list[Source] | None:
    """The partitions that the app's group has given it; None before the first word of the group."""
    given: Any = app._assignment
    return None if given is None else sorted(Source(tp.topic, tp.partition) for tp in given)


UNOWNED_AFTER = 10.0
"""Seconds after which an assigned partition is one that nobody works on; a seek takes less than one."""


class Liveness:
    """Watches the reading of one app; `name` stands in the message. Times are monotonic seconds.

    `owned` tells the partitions that the role works on, where it keeps something of each.
    """

    def __init__(self, app: App, name: str, owned: Callable[[], Iterable[Source]] | None = None) -> None:
        self._app = app
        self._name = name
        self._owned = owned
        self._unowned_at: float | None = None
        self._seen: dict[object, int | None] = {}
        self._moved_at: float | None = None

    def waiting(self) -> dict[str, int]:
        """Records that wait in each assigned partition which has any."""
        consumer: Any = self._app.consumer
        behind: dict[str, int] = {}
        for tp in consumer.assignment():
            highwater = consumer.highwater(tp)
            read = consumer._read_offset[tp]
            if highwater and read is not None and highwater > read + 1:
                behind[f"{tp.topic}/{tp.partition}"] = highwater - read - 1
        return behind

    def reads(self, now: float) -> set[Source]:
        """The partitions that this process reads; none while no broker answers."""
        return set() if silence(self._app, now) is not None else set(assigned(self._app) or ())

    def unowned(self, now: float) -> str | None:
        """Which assigned partitions the role does not work on, where that lasts: what comes from them is dropped."""
        if self._owned is None:
            return None
        consumer: Any = self._app.consumer
        left = {Source(tp.topic, tp.partition) for tp in consumer.assignment()} - set(self._owned())
        # Without the brokers' word the group gives and takes nothing.
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
        """Why the process should end; None while all is well. To be asked about once a second."""
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
