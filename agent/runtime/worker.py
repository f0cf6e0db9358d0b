"""`flipback run`: the roles of one process, their start, their health and their end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial

from agent.after_flip import watch as aftermath
from agent.after_flip.events import drift_event, flips_event, inability_event, transition_event
from agent.after_flip.watch import AfterFlipWatch
from agent.armed.verdict import Arming
from agent.armed.view import FlagKey
from agent.commands.keys import load_private
from agent.config.kafka import connection as connect
from agent.config.load import rules_hash
from agent.config.model import Config
from agent.decisions.blame import Blame, BlameRules, JudgedFlags
from agent.decisions.commander import Commander, CommanderOutputs
from agent.decisions.issuing import IssueSettings
from agent.decisions.peer_monitors import PeerMonitors, watched_services
from agent.decisions.ramp import Ramps
from agent.decisions.standing import standing_event
from agent.deployment.own_keys import ensure_keys
from agent.deployment.presence import Presence, Said
from agent.errors import FlipbackError
from agent.executor.service import CHECK_EVERY, Flips
from agent.heartbeats.heartbeat import Role
from agent.logs.setup import log_event, tell_repeated
from agent.runtime.publisher import Publisher
from agent.runtime.role_health import Roles, health_of, obstacles_of, telemetry_of
from agent.runtime.shutdown import Deadline
from agent.runtime.works import Works
from agent.state.flag_changes import change_of
from agent.state.flags import FlagStatus
from agent.state.state_tables import StateTables
from agent.state.table_reader import TableReader
from agent.telemetry import topics
from agent.telemetry.topic_watch import TopicWatch, shrunk_event
from agent.telemetry.watch import TelemetryWatch
from agent.web.health import HealthServer, RoleHealth
from detectors.conditions.spec import longest_lookback, longest_window
from detectors.windows.store import DISPLAY
from streams.clock import Clock
from streams.condition import ShardCondition
from streams.executor.role import ExecutorRole
from streams.ingest.role import IngestRole, IngestSettings
from streams.kafka.app import send_until_acknowledged
from streams.kafka.driver import App
from streams.kafka.liveness import Liveness
from streams.kafka.outbox import Record
from streams.kafka.topics import Topics
from streams.monitor.role import Handlers, MonitorRole
from streams.monitor.settings import MonitorSettings, ShardSettings
from streams.monitor.shard import EvaluatedSecond
from streams.monitor.watch_list import watch_list
from streams.slices import Source

ROLES: tuple[Role, ...] = ("ingest", "monitor", "executor")

_FLUSH_WITHIN = 0.5
"""Seconds that records which nobody waits for get at the end: what is left of a flip is in the ledger."""

_logger = logging.getLogger(__name__)


class RoleFailed(FlipbackError):
    """A role ended or stood still; the process must end, and its supervisor start another."""


async def run(config: Config, roles: Sequence[Role], stop: asyncio.Event, *, ending: Deadline) -> None:
    """Run until `stop` is set; then, or when a role fails, `ending` begins, and everything is stopped.

    RoleFailed when a role ends by itself or stands still, TopicError when the brokers cannot be used.
    """
    worker = Worker(config, roles)
    async with worker.running(ending):
        failed = asyncio.create_task(worker.watch())
        stopped = asyncio.create_task(stop.wait())
        ready = asyncio.create_task(worker.ready())
        try:
            done, _ = await asyncio.wait({failed, stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
            if ready in done:
                ready.result()
                # What is there now stays. Gone through again each time, it made a collection of 65 ms, in which every
                # thread waits, and a flip too.
                gc.collect()
                gc.freeze()
                log_event(_logger, "run.ready", roles=list(roles), health=worker.web.url)
            done, _ = await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if failed in done:
                failed.result()
        finally:
            for task in (failed, stopped, ready):
                task.cancel()
    log_event(_logger, "run.stopped")


class Worker:
    """The roles of this process, wired to each other by topics only."""

    def __init__(self, config: Config, roles: Sequence[Role]) -> None:
        self.config = config
        self.roles = tuple(roles)
        self.specs = config.trigger_specs()
        self.habits = config.habits()
        self.topics = Topics(config.kafka.prefix)
        self.connection = connect(config)
        self.clock = Clock()
        self.known = StateTables(lambda: self.clock.now().latest)
        self.publisher = Publisher(self.topics, self._write)
        self._ramps = Ramps(self.specs, self.publisher.event)
        self.ingest: IngestRole | None = None
        self.monitor: MonitorRole | None = None
        self.executor: ExecutorRole | None = None
        self.flips: Flips | None = None
        self.presence: Presence | None = None
        self.web = HealthServer(self.health, self._arming, host=config.web.host, port=config.web.port)
        take = {self.topics.incidents: self.known.incident, self.topics.flags: self._flag}
        if "monitor" in self.roles:
            take[self.topics.healthy] = self._remember
        self._tables = TableReader(take, self.connection.client)
        self._partitions: dict[str, int] = {}
        self._liveness: dict[Role, Liveness] = {}
        self._topic_watch: TopicWatch | None = None
        self._recovered = asyncio.Event()
        self._works = Works(self.publisher.event)

    @contextlib.asynccontextmanager
    async def running(self, ending: Deadline) -> AsyncIterator[None]:
        """Start everything, and stop it in reverse: readers first, so that nothing new is begun."""
        partitions = self._partitions = dict(await topics.ready(self.config, self.connection.client))
        await ensure_keys(self.config, self.roles)
        self._make_roles(partitions)
        presence = self.presence = Presence(
            self.config,
            self.roles,
            connection=self.connection.client,
            apps=self.apps,
            said=self._said,
            partitions=partitions,
            ages=self._ages,
            ledger=None if self.flips is None else self.flips.ledger,
        )
        async with contextlib.AsyncExitStack() as stack:
            with ending:
                await self.web.start()
                stack.push_async_callback(self.web.stop)
                for topic in self._tables:
                    self._works.begin(f"reading {topic}", partial(self._tables.follow, topic), stack)
                if self.flips is not None:
                    stack.push_async_callback(self.flips.close)
                apps = self.apps()
                for app in apps.values():
                    app.finalize()
                stack.push_async_callback(self.publisher.outbox.close)
                stack.push_async_callback(lambda: asyncio.gather(*(app.stop() for app in apps.values())))
                await asyncio.gather(*(app.start() for app in apps.values()))
                stack.push_async_callback(self.publisher.outbox.flush, _FLUSH_WITHIN)
                self._works.begin("watching writes", self.publisher.watch, stack)
                self._works.begin("reading heartbeats", presence.follow, stack)
                stack.push_async_callback(presence.heart.leave)
                self._works.begin("publishing heartbeats", presence.heart.run, stack)
                if "monitor" in self.roles or "executor" in self.roles:
                    self._works.begin("watching the others", partial(presence.watch, self.publisher.event), stack)
                if self.ingest is not None:
                    counted = self.ingest.ingest.counts.telemetry
                    watch = partial(TelemetryWatch().run, counted, self.publisher.event)
                    self._works.begin("watching telemetry", watch, stack)
                if self.flips is not None:
                    self._works.begin("watching flags", partial(self._watch_flags, self.flips), stack)
                    self._works.begin("telling what was done", partial(self._tell, self.flips), stack)
                    self._works.begin("checking backends", partial(self._check_flips, self.flips), stack)
                self._liveness = {role: Liveness(app, role, self._owned(role)) for role, app in apps.items()}
                groups = {role: app.conf.id for role, app in apps.items()}
                self._topic_watch = TopicWatch(
                    self.config,
                    groups,
                    self.connection.client,
                    self.publisher.event,
                    self._liveness,
                    self._resized,
                )
                self._works.begin("looking at topics", self._topic_watch.run, stack)
                yield

    def _resized(self, topic: str, partitions: int) -> None:
        """A telemetry topic has so many partitions: each of them, and no other, needs a reader and is waited for."""
        self._partitions[topic] = partitions
        shards = () if self.monitor is None else self.monitor.shards.values()
        had = [known for shard in shards if (known := shard.merge.resized(topic, partitions)) is not None]
        if had:
            self.publisher.event(shrunk_event(topic, max(had), partitions, at=time.time()))

    def _owned(self, role: Role) -> Callable[[], Iterable[Source]] | None:
        made = self.ingest if role == "ingest" else self.monitor if role == "monitor" else None
        return None if made is None else made.owned

    def _make_roles(self, partitions: Mapping[str, int]) -> None:
        config, lookback = self.config, longest_lookback(self.specs)
        after_flip = aftermath.lookback(config.flags, config.after_flip)
        if "ingest" in self.roles:
            self.ingest = IngestRole(
                self.connection,
                self.topics,
                IngestSettings(
                    formats={t.topic: t.format for t in config.telemetry},
                    sources={t.topic: t.source for t in config.telemetry},
                    watch=watch_list(self.specs, self.habits),
                    max_scopes=config.max_scopes,
                    max_lateness=config.max_lateness,
                    lookback=lookback,
                ),
                partitions=partitions,
                clock=self.clock,
                publish=self.publisher.outbox.put,
            )
        if "monitor" in self.roles:
            self.monitor = MonitorRole(
                self.connection,
                self.topics,
                MonitorSettings(
                    specs=self.specs,
                    drift_targets=self.habits,
                    telemetry=[t.topic for t in config.telemetry],
                    partials_partitions=partitions[self.topics.partials],
                    lookback=max(lookback, after_flip),
                    window_lookback=max(longest_window(self.specs), DISPLAY, after_flip),
                    shard=ShardSettings(
                        max_scopes=config.max_scopes,
                        evaluate_every=int(config.evaluate_every),
                        catching_up_after=config.catching_up_after,
                        max_lateness=config.max_lateness,
                    ),
                ),
                handlers=self._handlers(),
                outbox=self.publisher.outbox,
                clock=self.clock,
                ready=self._tables.read,
            )
        if "executor" in self.roles:
            self.flips = Flips(config, emit=self.publisher.event, result=self.publisher.incident)
            self.executor = ExecutorRole(
                self.connection,
                self.topics,
                lookback=config.command.expires,
                signed=self.flips.trusts,
                execute=self._execute,
                refuse=self.flips.refuse,
            )

    def _handlers(self) -> Handlers:
        flags = {(flag.environment, flag.flag): flag for flag in self.config.flags}
        commander = Commander(
            flags,
            self.known,
            IssueSettings(
                load_private(self.config.signing_key),
                rules_hash=rules_hash(self.config),
                lifetime=self.config.command.expires,
            ),
            outputs=CommanderOutputs(
                command=self._command,
                incident=self.publisher.incident,
                event=self.publisher.post,
            ),
            clock=time.time,
            blame=Blame(
                self._judged,
                BlameRules.of(self.config),
                peers=PeerMonitors(
                    watched_services(self.specs),
                    self.known,
                    self.publisher.ill,
                    by=str(uuid.uuid4()),
                    place=lambda: min(self.monitor.shards, default=0) if self.monitor is not None else 0,
                ),
            ),
        )

        after = AfterFlipWatch(flags, self.known, self.config.after_flip, self.publisher.said)

        def inability(partition: int, condition: ShardCondition, begun: bool) -> None:
            at = time.time()
            self.publisher.event(inability_event(self.topics.partials, partition, condition, begun=begun, at=at))

        async def firing(second: EvaluatedSecond) -> None:
            await commander.firing(second.time, second.firing, second.ill)

        async def judged(second: EvaluatedSecond) -> None:
            if not second.muted:
                self._ramps.judged(second.time, second.observer.services)
                commander.expire()
            await after.judged(second)

        return Handlers(
            firing=firing,
            transition=lambda *change: self.publisher.event(transition_event(*change)),
            inability=inability,
            drift=lambda habit, found: self.publisher.event(drift_event(habit, found)),
            judged=judged,
            standing=lambda change: self.publisher.event(standing_event(change)),
        )

    def _judged(self) -> JudgedFlags:
        if self.monitor is None:
            return JudgedFlags({}, -math.inf)
        return JudgedFlags(self.monitor.watched(), self.monitor.judged_until())

    def apps(self) -> dict[Role, App]:
        return {name: role.app for name, role in self._roles_here().items()}

    def _roles_here(self) -> Roles:
        roles: dict[Role, ExecutorRole | MonitorRole | IngestRole | None]
        roles = {"executor": self.executor, "monitor": self.monitor, "ingest": self.ingest}
        return {name: role for name, role in roles.items() if role is not None}

    async def _write(self, record: Record) -> None:
        # The executor's producer where there is one: commands have the monitor's for themselves.
        app = next(iter(self.apps().values()))
        topic, value, key, partition, headers = record
        await app.producer.send_and_wait(topic, key, value, partition, None, list(headers))

    async def _command(self, key: bytes, value: bytes) -> None:
        app, commands = self.apps()["monitor"], self.publisher.commands
        with commands.command():
            await send_until_acknowledged(app, self.topics.commands, value, key=key, on_retry=commands.failed)

    def _flag(self, value: bytes | None) -> None:
        status = self.known.flag(value)
        if status is None:
            return
        if self.flips is not None:
            self.flips.prime(status)
        status = self.known.flags[status.environment, status.flag]
        self._ramps.update(status)
        if self.monitor is not None:
            share = None if status.percent is None else status.percent / 100
            self.monitor.flag_changed(status.environment, status.flag, status.changed_at, share, safe=status.safe)

    def _remember(self, value: bytes | None) -> None:
        if self.monitor is not None:
            self.monitor.remember(value)

    async def _execute(self, raw: bytes) -> None:
        if self.flips is not None:
            await self._recovered.wait()
            for status in await self.flips.execute(raw):
                self._seen(status)

    async def _watch_flags(self, flips: Flips) -> None:
        """Publish the state of every managed flag, at once when it changes."""
        await self._tables.read.wait()
        if not self._recovered.is_set():
            flips.recover()
            self._recovered.set()
        await flips.watch(self._publish)

    async def _tell(self, flips: Flips) -> None:
        await self._recovered.wait()
        await flips.publish_pending()

    async def _check_flips(self, flips: Flips) -> None:
        """Announce what would stop a flip when it begins and when it is over."""
        while True:
            before = flips.problems or []
            problems = await flips.check()
            if problems != before:
                self.publisher.event(flips_event(self.topics.commands, problems, at=time.time()))
            await asyncio.sleep(CHECK_EVERY)

    async def _publish(self, status: FlagStatus) -> None:
        change = change_of(self.known.flags.get((status.environment, status.flag)), status)
        self._seen(status)
        if change is not None:
            self.publisher.event(change)

    def _seen(self, status: FlagStatus) -> None:
        self.known.see(status)
        self.publisher.flag(status)

    async def ready(self) -> None:
        """Return when every role reads its topics."""
        # Faust tells of an assignment through a callback of each app; asking them all is simpler than joining those.
        while not all(health.ready for health in self.health().values()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def health(self) -> dict[str, RoleHealth]:
        """The state of each role, for people and probes."""
        return {
            name: health_of(role, self._problems_of(name), covered=self._covered(name))
            for name, role in self._roles_here().items()
        }

    def _problems_of(self, role: Role) -> list[str]:
        """What keeps a role from its work, although it reads or stands by."""
        problems = [*self._unread(role), *self._works.problems()]
        if role != "ingest":
            problems += self.publisher.problems()
        if role == "executor" and self.flips is not None:
            problems += self.flips.unreadable() or self.flips.problems or []
        return problems

    def _unread(self, role: Role) -> list[str]:
        """What keeps a role from reading what it should, or from knowing the time of it."""
        doubt = self.clock.now().doubt
        problems = [] if self._topic_watch is None else self._topic_watch.problems.of(role, time.monotonic())
        return [*problems, doubt] if doubt else problems

    def _covered(self, role: Role) -> bool:
        """Do other processes have all partitions of the role, where this one has none?"""
        return self._topic_watch is not None and self._topic_watch.problems.covered(role)

    def _said(self) -> Said:
        """What this process tells the others of itself."""
        roles = self._roles_here()
        unread = {role: self._unread(role) for role in roles}
        in_use = {name for name, status in self.known.flags.items() if not status.safe}
        return Said(
            [*obstacles_of(roles, self.flips, self.publisher.problems(), unread, in_use), *self._works.obstacles()],
            None if self.flips is None else self.flips.halt,
            telemetry_of(self.ingest, [telemetry.topic for telemetry in self.config.telemetry]),
        )

    def _arming(self) -> Arming | None:
        return None if self.presence is None else self.presence.arming()

    def _ages(self) -> dict[FlagKey, float] | None:
        """How many seconds ago each flag was read, once the table has been."""
        now = time.time()
        known = self.known.flags.items()
        return {name: now - status.at for name, status in known} if self._tables.read.is_set() else None

    async def watch(self) -> None:
        """Raise RoleFailed as soon as a role has ended or stands still."""
        while True:
            tell_repeated()
            for role, app in self.apps().items():
                if app.crashed or app.should_stop:
                    raise RoleFailed(f"{role} ended: {app.crash_reason!r}; see the log above")
            self._works.look()
            for liveness in self._liveness.values():
                stuck = liveness.stuck(time.monotonic())
                if stuck is not None:
                    raise RoleFailed(f"{stuck}; the process ends so that it is started anew")
            unread = self._topic_watch and self._topic_watch.problems.hopeless(time.monotonic())
            if unread:
                raise RoleFailed(f"{unread}; the process ends so that it is started anew")
            await asyncio.sleep(0.5)
