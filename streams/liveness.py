"""Is a role still reading? Faust's consumers have been reported to stop silently after a broker was away
(faust-streaming/faust issues 175, 523, 532): then the process must end, so that its supervisor starts another."""

from __future__ import annotations

from typing import Any

from streams.slices import Source
from streams.transport import App

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


class Liveness:
    """Watches the reading positions of one app; `name` stands in the message. Times are monotonic seconds."""

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self._name = name
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

    def stuck(self, now: float) -> str | None:
        """Why the process should end; None while all is well. To be asked about once a second."""
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
