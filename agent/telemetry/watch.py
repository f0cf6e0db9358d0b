"""Publishes a warning event a minute for each topic whose samples cannot be read in whole or in part."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.events import cloudevents as events
from agent.events.cloudevents import Event, event_id
from streams.decoders.faults import Fault, FaultKind
from streams.ingest.telemetry_counts import WITHIN, Telemetry

LOOK_EVERY: Final = 5.0
"""Seconds between two checks, so that the first fault is published soon after a service begins to send it."""


_DONE: Final[Mapping[FaultKind, str]] = {
    "rejected": "rejected",
    "dropped": "counted without it",
    "missing": "which lack it",
}


def telemetry_event(telemetry: Telemetry, *, at: float) -> Event:
    """The event on the faulty samples of a topic; `at` is in Unix seconds."""
    return Event(
        type=events.TELEMETRY_REJECTED,
        subject=telemetry.topic,
        data={
            "topic": telemetry.topic,
            "received": telemetry.received,
            "rejected": telemetry.rejected,
            "no_outcome": telemetry.no_outcome,
            "reason": "; ".join(told(fault) for fault in telemetry.faults[:2]),
            "faults": [fault._asdict() for fault in telemetry.faults],
        },
        id=event_id(telemetry.topic, events.TELEMETRY_REJECTED, repr(at)),
        time=at,
    )


def told(fault: Fault) -> str:
    """A fault in a line for people."""
    what = fault.said if fault.field == "record" else f"{fault.field}: {fault.said}"
    example = f", such as {fault.example}" if fault.example else ""
    return f"{what}{example} ({fault.samples:,} samples, {_DONE[fault.kind]})"


class TelemetryWatch:
    """Decides from the counts of an ingest process which events to publish."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}

    def events(self, telemetry: Sequence[Telemetry], *, now: float, at: float) -> list[Event]:
        """The events that are due; `now` is in monotonic seconds, `at` in Unix seconds."""
        found = []
        for one in telemetry:
            if one.faulty and now - self._told_at.get(one.topic, -WITHIN) >= WITHIN:
                self._told_at[one.topic] = now
                found.append(telemetry_event(one, at=at))
        return found

    async def run(self, counted: Callable[[], Sequence[Telemetry]], publish: Callable[[Event], object]) -> None:
        """Look for as long as the process runs. `publish` must not wait."""
        while True:
            for event in self.events(counted(), now=time.monotonic(), at=time.time()):
                publish(event)
            await asyncio.sleep(LOOK_EVERY)
