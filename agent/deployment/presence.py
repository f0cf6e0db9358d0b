"""This process among the others of its deployment: it publishes heartbeats and reads those of all."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from agent.after_flip.events import group_event
from agent.armed.group import of_clocks, of_group
from agent.armed.verdict import Arming, arming
from agent.armed.view import FlagKey, View, names, wanted
from agent.commands.keys import load_private, load_public
from agent.config.load import managed_hash, rules_hash
from agent.config.model import Config
from agent.events.cloudevents import Event
from agent.heartbeats.heartbeat import Heartbeat, Members, Obstacle, Part, Role, TelemetryCount, alive, reads_of
from agent.heartbeats.sender import LOOK_EVERY, Heart
from agent.heartbeats.watchdog import Watchdog
from agent.ledger.identity import separate_ledgers
from agent.logs.setup import log_event
from streams.kafka.app import send_within
from streams.kafka.driver import App
from streams.kafka.liveness import assigned
from streams.kafka.reader import read_topic
from streams.kafka.topics import Topics
from streams.slices import Source

_AGAIN_AFTER = 1.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SelfReport:
    """What only the roles of this process know. It is made for every heartbeat."""

    obstacles: Sequence[Obstacle] = ()
    halted: str | None = None
    telemetry: Sequence[TelemetryCount] = ()


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """What this process knows of itself; the functions are called for every heartbeat and must not wait.

    `apps` returns the Faust app of each role, `report` the newest report, `ages` how many seconds ago each flag was
    read, None while that is unknown. `partitions` is how many each topic has, `ledger` the id of the executor's ledger.
    """

    apps: Callable[[], Mapping[Role, App]]
    report: Callable[[], SelfReport]
    ages: Callable[[], Mapping[FlagKey, float] | None]
    partitions: Mapping[str, int]
    ledger: str | None = None


class Presence:
    """Publishes the heartbeats of this process and keeps the table of all. Raises ConfigError if a key is unusable."""

    def __init__(
        self, config: Config, roles: Sequence[Role], connection: Mapping[str, Any], process: OwnProcess
    ) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.members = Members()
        self._topic = Topics(config.kafka.prefix).heartbeats
        self._roles = tuple(roles)
        self._connection = dict(connection)
        self._process = process
        self._wanted = wanted(config)
        self._fixed = Heartbeat(
            id=self.id,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            started_at=time.time(),
            at=0.0,
            version=version(),
            roles={},
            rules=rules_hash(config),
            managed=managed_hash(config),
            mode=config.mode,
            signs=load_private(config.signing_key).id if "monitor" in roles else None,
            flags=names(config),
            accepts=[load_public(path).id for path in config.public_keys] if "executor" in roles else [],
            ledger=process.ledger,
        )
        self._separate: str | None = None
        self._watchdog = Watchdog(self.id, self.members)
        self.heart = Heart(self.beat, self._send)

    def beat(self) -> Heartbeat:
        """The current heartbeat."""
        given = {role: assigned(app) for role, app in self._process.apps().items()}
        report, fixed = self._process.report(), self._fixed
        return Heartbeat(
            id=fixed.id,
            host=fixed.host,
            pid=fixed.pid,
            started_at=fixed.started_at,
            at=time.time(),
            version=fixed.version,
            roles={role: _part(given.get(role)) for role in self._roles},
            rules=fixed.rules,
            managed=fixed.managed,
            mode=fixed.mode,
            signs=fixed.signs,
            accepts=fixed.accepts,
            flags=fixed.flags,
            ledger=fixed.ledger,
            reads=reads_of(source for sources in given.values() for source in sources or ()),
            halted=report.halted,
            obstacles=[*report.obstacles, *self._clocks()],
            telemetry=list(report.telemetry),
        )

    def _clocks(self) -> Iterator[Obstacle]:
        """Obstacles of this executor's clock. Only a lasting process can measure clocks by several heartbeats."""
        return of_clocks(alive(self.members.all()), self._wanted.lifetime, self.id)

    def arming(self) -> Arming:
        """Would a flip happen now, by what this process knows?"""
        report = self._process.report()
        halt = [] if report.halted is None else [Obstacle(what="automation", why=report.halted)]
        return arming(self._wanted, self._view([*halt, *report.obstacles]))

    def _view(self, local: Sequence[Obstacle] = ()) -> View:
        members = self.members
        return View(
            members=members.all() if members.caught_up else None,
            partitions=self._process.partitions,
            ages=self._process.ages(),
            local=local,
            own=self.id,
            started_at=self._fixed.started_at,
        )

    async def watch(self, announce: Callable[[Event], object]) -> None:
        """Announce which processes are missing or do not fit, and when that is over. Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._compare_ledgers()
            for news in self._watchdog.look(of_group(self._wanted, self._view()), time.monotonic()):
                announce(group_event(news.what, news.reason, begun=news.begun, at=time.time()))

    def _compare_ledgers(self) -> None:
        """Log once that executors have separate ledgers."""
        before, self._separate = self._separate, separate_ledgers(self.members.all())
        if self._separate is not None and before is None:
            log_event(_logger, "ledgers.separate", level=logging.WARNING, reason=self._separate)

    async def follow(self) -> None:
        """Keep the table up to its topic. If the topic cannot be read, all other processes look away."""
        while True:
            # Records that are read from the beginning again are not new.
            self.members.caught_up = False
            try:
                async for read in read_topic(self._topic, self._connection):
                    for record in read.records:
                        self.members.take(record.key, record.value)
                    if read.at_end:
                        self.members.caught_up = True
            except Exception as error:
                log_event(_logger, "heartbeats.unread", level=logging.WARNING, error=repr(error))
            await asyncio.sleep(_AGAIN_AFTER)

    async def _send(self, key: bytes, value: bytes | None, within: float) -> None:
        await send_within(next(iter(self._process.apps().values())), self._topic, key, value, within=within)


def version() -> str:
    """The installed version of flipback."""
    try:
        return metadata.version("flipback")
    except metadata.PackageNotFoundError:
        return "unknown"


def _part(given: Sequence[Source] | None) -> Part:
    """The part of a role: it reads partitions, other processes have them all, or none are assigned yet."""
    if given is None:
        return "starting"
    return "active" if given else "standby"
