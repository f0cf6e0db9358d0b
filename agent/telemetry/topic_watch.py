"""Do the topics of this process exist, and does some process read each partition of those it reads?

A process without a partition is a standby only if other processes have all of them. A missing topic is named.
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
from streams.kafka.coverage import Group, TopicCoverage, read_coverage
from streams.kafka.liveness import Liveness
from streams.kafka.topics import TIMEOUT, Topics, TopicSpec, admin_client, create

EVERY = 5.0
"""Seconds between two checks; two in a row distinguish a missing owner from a rebalance."""
ANNOUNCED_AFTER = 10.0
"""Seconds after which unread partitions are announced. A missing topic is announced at once: its records are lost, even
if it is created again soon.
"""
HOPELESS_AFTER = 30.0

_logger = logging.getLogger(__name__)


class ReadingProblem(NamedTuple):
    """A topic or group (`subject`) that is not read; `roles` cannot work because of it."""

    subject: str
    reason: str
    roles: frozenset[Role]
    unread: bool


@dataclass(slots=True)
class Problems:
    """The problems that the checks have found, and since when (monotonic seconds)."""

    groups: Mapping[Role, Group]
    telemetry: frozenset[str]
    made: bool
    """Does the configuration let flipback create its own topics that are missing?"""
    looked: bool = False
    _open: dict[str, tuple[ReadingProblem, float]] = field(default_factory=dict)
    _announced: set[str] = field(default_factory=set)

    def observe(self, seen: TopicCoverage, now: float, idle: Mapping[Role, str] | None = None) -> None:
        """Take in a check. `idle` maps each role that does not work on its own partitions to the reason."""
        found = {problem.subject: problem for problem in self._found(seen)}
        for role, reason in (idle or {}).items():
            # The reason of an idle role says more than that no process has the partitions.
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
        """What keeps a role from its work. Unread partitions count from the second check on: a rebalance passes."""
        return [
            problem.reason
            for problem, since in self._open.values()
            if role in problem.roles and (not problem.unread or now - since >= EVERY)
        ]

    def covered(self, role: Role) -> bool:
        """Did some process read each partition of the role's topics at the last check?"""
        gone = any(problem.subject in self.groups[role].topics for problem, _ in self._open.values())
        return self.looked and not gone and self.groups[role].name not in self._open

    def due(self, now: float) -> list[tuple[str, str]]:
        """Announcements that are due: a subject and the reason, which is empty if the problem is over."""
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
        """Why the process should end, so that its supervisor starts another; None if it should not."""
        for problem, since in self._open.values():
            if problem.unread and now - since >= HOPELESS_AFTER:
                return f"{problem.reason} for {now - since:.0f} s"
        return None


class Sizes:
    """Numbers of partitions, confirmed by two checks in a row: a broker may learn of a change late."""

    def __init__(self) -> None:
        self._last: Mapping[str, int] = {}

    def observe(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The topics whose number is the same as at the check before."""
        found = {topic: number for topic, number in counts.items() if self._last.get(topic) == number}
        self._last = dict(counts)
        return found


class TopicWatch:
    """Checks the topics every 5 s; `announce` publishes an inability and does not wait.

    `resized` is called at each check with a telemetry topic and its number of partitions.
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
                async with admin_client(self._connection, within=None) as client:
                    while True:
                        await self._look(client)
                        await asyncio.sleep(EVERY)
            except StreamsError as error:
                # The roles report brokers that do not answer.
                _logger.debug("topics were not looked at: %s", error)
            await asyncio.sleep(EVERY)

    async def _look(self, client: Any) -> None:
        groups = self.problems.groups
        topics = {*self._specs, *(topic for group in groups.values() for topic in group.topics)}
        async with asyncio.timeout(TIMEOUT):
            seen = await read_coverage(client, topics, list(groups.values()))
        for topic, number in self._sizes.observe(seen.counts).items():
            if topic in self.problems.telemetry:
                self._resized(topic, number)
        now = time.monotonic()
        idle = {role: reason for role, one in self._liveness.items() if (reason := one.unowned(now)) is not None}
        own = {source for one in self._liveness.values() for source in one.reads(now)}
        self.problems.observe(seen.without(own), now, idle)
        for subject, reason in self.problems.due(now):
            self._announce(unread_event(subject, reason, at=time.time()))
        # Create a topic only if it was missing twice: an administrator may be creating it again.
        gone = frozenset(seen.missing) & self._specs.keys()
        if self.problems.made and gone & self._missing:
            await self._make([self._specs[name] for name in sorted(gone)])
        self._missing = gone

    async def _make(self, specs: list[TopicSpec]) -> None:
        made = await create(specs, replication=self._replication, connection=self._connection)
        log_event(_logger, "topics.created", level=logging.WARNING, topics=list(made.created))


def unread_event(subject: str, reason: str, *, at: float) -> Event:
    """The event that a topic or group is not read, and why; with an empty reason, that it is read again."""
    return Event(
        type=events.INABILITY,
        subject=subject,
        data={"state": "begun" if reason else "ended", "status": "unable", "reason": reason},
        id=events.event_id("unread", subject, reason, str(at)),
        time=at,
    )


def shrunk_event(topic: str, had: int, has: int, *, at: float) -> Event:
    """The notice that a telemetry topic was created again with fewer partitions; a person need not act."""
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
