"""Are the topics there that this process works with, and does some process read each partition of those it reads?

A process that has no partition is no standby where nobody has them, and a topic that is gone is said by its name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.config.model import Config
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.heartbeats.heartbeat import Role
from agent.logs.setup import log_event
from agent.telemetry.topics import wanted
from streams.condition import shortened
from streams.errors import StreamsError
from streams.kafka.coverage import Group, TopicCoverage, look
from streams.kafka.liveness import Liveness
from streams.kafka.topics import TIMEOUT, Topics, TopicSpec, administrator, create

EVERY = 5.0
"""Seconds between two looks; two in a row tell a missing owner from a rebalance."""
ANNOUNCED_AFTER = 10.0
"""Seconds after which it is announced that nobody reads. That a topic is gone is announced at once: what it held is
lost, though it may be made anew before anybody looks."""
HOPELESS_AFTER = 30.0

_logger = logging.getLogger(__name__)


class ReadingProblem(NamedTuple):
    """Something is not read: `subject` is the topic or the group, `roles` are those that cannot work for it."""

    subject: str
    reason: str
    roles: frozenset[Role]
    unread: bool


@dataclass(slots=True)
class Problems:
    """What the looks have shown, and since when (monotonic seconds)."""

    groups: Mapping[Role, Group]
    telemetry: frozenset[str]
    made: bool
    """Does the start make topics of flipback's own that are missing?"""
    looked: bool = False
    _open: dict[str, tuple[ReadingProblem, float]] = field(default_factory=dict)
    _announced: set[str] = field(default_factory=set)

    def observe(self, seen: TopicCoverage, now: float, idle: Mapping[Role, str] | None = None) -> None:
        """`idle` has the roles that do not work on partitions which are theirs, and says so."""
        found = {problem.subject: problem for problem in self._found(seen)}
        for role, reason in (idle or {}).items():
            # That nobody has them says less than that they lie here.
            found[self.groups[role].name] = ReadingProblem(
                self.groups[role].name, reason, frozenset({role}), unread=True
            )
        self._open = {
            subject: (problem, self._open[subject][1] if subject in self._open else now)
            for subject, problem in found.items()
        }
        self.looked = True

    def _found(self, seen: TopicCoverage) -> Iterator[ReadingProblem]:
        for topic in seen.missing:
            if topic in self.telemetry:
                do = "create it, and it is read within about 10 s"
                yield ReadingProblem(topic, f"topic {topic} is not there: {do}", frozenset({"ingest"}), unread=False)
            else:
                do = "it is made anew" if self.made else "create it with `flipback topics create`"
                reason = f"topic {topic} is not there, and what it held is lost: {do}"
                yield ReadingProblem(topic, reason, frozenset(self.groups), unread=False)
        for role, group in self.groups.items():
            unread = seen.unread.get(group.name, ())
            if unread:
                names = shortened([f"{source.topic}/{source.partition}" for source in unread])
                reason = f"no process reads {names}: no member of the group {group.name} has it"
                yield ReadingProblem(group.name, reason, frozenset({role}), unread=True)

    def of(self, role: Role, now: float) -> list[str]:
        """What keeps a role from its work. That nobody reads counts from the second look on: a rebalance passes."""
        return [
            problem.reason
            for problem, since in self._open.values()
            if role in problem.roles and (not problem.unread or now - since >= EVERY)
        ]

    def covered(self, role: Role) -> bool:
        """Was each partition of the role's topics read by some process at the last look?"""
        gone = any(problem.subject in self.groups[role].topics for problem, _ in self._open.values())
        return self.looked and not gone and self.groups[role].name not in self._open

    def due(self, now: float) -> list[tuple[str, str]]:
        """Announcements that are due: a subject and the reason, which is empty where it is over."""
        lasting = {
            subject: problem.reason
            for subject, (problem, since) in self._open.items()
            if now - since >= ANNOUNCED_AFTER or not problem.unread
        }
        begun = [(subject, reason) for subject, reason in lasting.items() if subject not in self._announced]
        ended = [(subject, "") for subject in sorted(self._announced - self._open.keys())]
        self._announced = (self._announced & self._open.keys()) | lasting.keys()
        return begun + ended

    def hopeless(self, now: float) -> str | None:
        """Why the process should end so that it is started anew."""
        for problem, since in self._open.values():
            if problem.unread and now - since >= HOPELESS_AFTER:
                return f"{problem.reason} for {now - since:.0f} s"
        return None


class Sizes:
    """How many partitions topics have, by two looks in a row: just after a change a broker may not know of it yet."""

    def __init__(self) -> None:
        self._last: Mapping[str, int] = {}

    def observe(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The topics of which the look before has found the same number."""
        found = {topic: number for topic, number in counts.items() if self._last.get(topic) == number}
        self._last = dict(counts)
        return found


class TopicWatch:
    """Looks every 5 s; `announce` publishes an inability and does not wait.

    `resized` is told again and again how many partitions each telemetry topic has.
    """

    def __init__(
        self,
        config: Config,
        roles: Mapping[Role, str],
        connection: Mapping[str, Any],
        announce: Callable[[Event], object],
        liveness: Mapping[Role, Liveness],
        resized: Callable[[str, int], None],
    ) -> None:
        """`roles` has the consumer group of each role of this process."""
        topics = Topics(config.kafka.prefix)
        telemetry = tuple(t.topic for t in config.telemetry)
        reads: dict[Role, tuple[str, ...]] = {
            "ingest": telemetry,
            "monitor": (topics.partials,),
            "executor": (topics.commands,),
        }
        groups = {role: Group(group, reads[role]) for role, group in roles.items()}
        self._specs = {spec.name: spec for spec in wanted(config) if spec.name not in telemetry}
        self._replication = config.kafka.replication
        self._connection = dict(connection)
        self._announce = announce
        self._liveness = liveness
        self._resized = resized
        self._sizes = Sizes()
        self._missing: frozenset[str] = frozenset()
        self.problems = Problems(groups, frozenset(telemetry), config.kafka.create_topics)

    async def run(self) -> None:
        while True:
            try:
                async with administrator(self._connection, within=None) as client:
                    while True:
                        await self._look(client)
                        await asyncio.sleep(EVERY)
            except StreamsError as error:
                # Brokers that do not answer are said by who reads from them.
                _logger.debug("topics were not looked at: %s", error)
            await asyncio.sleep(EVERY)

    async def _look(self, client: Any) -> None:
        groups = self.problems.groups
        topics = {*self._specs, *(topic for group in groups.values() for topic in group.topics)}
        async with asyncio.timeout(TIMEOUT):
            seen = await look(client, topics, list(groups.values()))
        for topic, number in self._sizes.observe(seen.counts).items():
            if topic in self.problems.telemetry:
                self._resized(topic, number)
        now = time.monotonic()
        idle = {role: reason for role, one in self._liveness.items() if (reason := one.unowned(now)) is not None}
        own = {source for one in self._liveness.values() for source in one.reads(now)}
        self.problems.observe(seen.without(own), now, idle)
        for subject, reason in self.problems.due(now):
            self._announce(unread_event(subject, reason, at=time.time()))
        # An administrator who makes a topic anew gets the time for it.
        gone = frozenset(seen.missing) & self._specs.keys()
        if self.problems.made and gone & self._missing:
            await self._make([self._specs[name] for name in sorted(gone)])
        self._missing = gone

    async def _make(self, specs: list[TopicSpec]) -> None:
        made = await create(specs, replication=self._replication, connection=self._connection)
        log_event(_logger, "topics.created", level=logging.WARNING, topics=list(made.created))


def unread_event(subject: str, reason: str, *, at: float) -> Event:
    """A topic or group is not read, and why; with an empty reason, that it is again."""
    return Event(
        type=events.INABILITY,
        subject=subject,
        data={"state": "begun" if reason else "ended", "status": "unable", "reason": reason},
        id=events.event_id("unread", subject, reason, str(at)),
        time=at,
    )


def shrunk_event(topic: str, had: int, has: int, *, at: float) -> Event:
    """A telemetry topic was made anew with fewer partitions; nothing is asked of a person, but to know of it."""
    reason = (
        f"topic {topic} has {has} partitions and had {had}: it was made anew, and what it held unread is lost; "
        f"verdicts go on with {has}"
    )
    return Event(
        type=events.INABILITY,
        subject=topic,
        data={"status": events.NOTICE, "reason": reason},
        id=events.event_id("shrunk", topic, str(had), str(has), str(at)),
        time=at,
    )
