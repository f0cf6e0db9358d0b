"""Publishes the records that no caller awaits: audit events, incidents, their follow-ups, states of flags.

All of them go through the outbox, so that a topic that takes no records delays no verdict and no flip
(docs/promises.md#p6-nothing-delays-a-flip). Such a topic is an inability: it is in the log and in /readyz at once, and
in the audit log as soon as that takes records again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from agent.events import cloudevents as events
from agent.events.cloudevents import Event, to_kafka
from agent.events.severity import importance, level
from agent.logs.setup import log_event
from agent.runtime.pending_commands import PendingCommands
from agent.state import incidents
from agent.state.flags import FlagStatus
from agent.state.incidents import AfterFlip, CommandResult, Ill, Incident
from streams.kafka.outbox import Outbox, Record, Stall
from streams.kafka.topics import Topics

STALLED_AFTER = 10.0
"""Seconds without an acknowledgement, while records wait, after which a topic counts as stalled."""

_CHECK_EVERY = 1.0
_ERROR_LENGTH = 200

_logger = logging.getLogger(__name__)


class Publisher:
    """Publishes records by `send`, which returns when a broker has acknowledged one. No method waits for that."""

    def __init__(self, topics: Topics, send: Callable[[Record], Awaitable[object]]) -> None:
        self._topics = topics
        compacted = (topics.incidents, topics.flags, topics.checkpoints, topics.healthy)
        self.outbox = Outbox(send, compacted)
        self.commands = PendingCommands()
        self._announced: dict[str, int] = {}

    def event(self, event: Event) -> asyncio.Future[None]:
        """Log an event and queue it for the audit log; the future is done once a broker has acknowledged it."""
        recorded = time.time() if event.recorded is None else event.recorded
        key, value, headers = to_kafka(msgspec.structs.replace(event, recorded=recorded))
        log_event(_logger, event.type, level=level(event), subject=event.subject, **event.data)
        return self.outbox.put(Record(self._topics.events, value, key, headers=headers), importance(event))

    async def post(self, event: Event) -> None:
        """Log an event and queue it, for callers that await; returns at once."""
        self.event(event)

    async def incident(self, record: Incident | CommandResult) -> None:
        """Queue an incident, or the result of its command; returns at once.

        A monitor that takes over before an incident is written sends the same command again; its id is the same, so the
        executor recognises it.
        """
        key = record.id.encode() if isinstance(record, Incident) else record.key
        self.outbox.put(Record(self._topics.incidents, incidents.encode(record), key))

    def ill(self, record: Ill) -> None:
        """Queue the flags that are ill in this monitor, for the other monitors."""
        self.outbox.put(Record(self._topics.incidents, incidents.encode(record), record.key))

    def after_flip(self, event: Event, found: AfterFlip) -> None:
        """Publish the event on a flip's effect or bake; once it is written, record that it was published."""
        record = Record(self._topics.incidents, incidents.encode(found), found.key)

        def record_published(written: asyncio.Future[None]) -> None:
            if not written.cancelled() and written.exception() is None:
                self.outbox.put(record)

        self.event(event).add_done_callback(record_published)

    def flag(self, status: FlagStatus) -> None:
        """Queue the state of a flag."""
        key = f"{status.environment}/{status.flag}".encode()
        self.outbox.put(Record(self._topics.flags, incidents.encode(status), key))

    def problems(self) -> list[str]:
        """A sentence for each topic that takes no records: the error, and what to do."""
        return [self._words(topic, stall) for topic, stall in self._stalls().items()]

    def _stalls(self) -> dict[str, Stall]:
        stalls, commands = dict(self.outbox.stalls(STALLED_AFTER)), self.commands.stall(STALLED_AFTER)
        return stalls if commands is None else {self._topics.commands: commands, **stalls}

    async def watch(self) -> None:
        """Publish when a topic begins to take no records, and when it takes them again. Until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(_CHECK_EVERY)

    def check(self) -> None:
        """Publish what changed since the last check."""
        stalls = self._stalls()
        for topic, stall in stalls.items():
            if topic not in self._announced:
                self._announced[topic] = self.outbox.dropped(topic)
                self.event(events.inability(topic, "unwritable", self._words(topic, stall), begun=True, at=time.time()))
        for topic in [*self._announced]:
            if topic not in stalls:
                dropped = self.outbox.dropped(topic) - self._announced.pop(topic)
                lost = f"; {dropped} records were dropped meanwhile, see the log" if dropped else ""
                self.event(
                    events.inability(
                        topic, "unwritable", f"{topic} takes records again{lost}", begun=False, at=time.time()
                    )
                )

    def _words(self, topic: str, stall: Stall) -> str:
        # The sentence stays the same while the stall lasts: a heartbeat is published whenever its text changes.
        error = f" ({stall.error[:_ERROR_LENGTH]})" if stall.error else ""
        meaning = "verdicts and flips go on without it"
        if topic == self._topics.commands:
            meaning = "no flip can be ordered until it does, turn flags off by hand"
        return (
            f"{topic} takes no records: none was acknowledged for {STALLED_AFTER:.0f} s{error}; {meaning}. Does the "
            "topic exist, may this process write to it, does its max.message.bytes allow 1 MB?"
        )
