"""`flipback run`: the start, the supervision and the end of one process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from agent.armed.verdict import Arming
from agent.config.model import Config
from agent.decisions.ramp import Ramps
from agent.deployment.own_keys import ensure_keys
from agent.deployment.presence import OwnProcess, Presence
from agent.errors import FlipbackError
from agent.executor.service import Flips
from agent.heartbeats.heartbeat import Role
from agent.logs.setup import log_event, tell_repeated
from agent.runtime.context import ProcessContext
from agent.runtime.executor_work import ExecutorWork
from agent.runtime.lasting_work import WorkSet
from agent.runtime.process_health import ProcessHealth
from agent.runtime.publisher import Publisher
from agent.runtime.roles import ProcessRoles, executor_role, ingest_role, monitor_role
from agent.runtime.shutdown import Deadline
from agent.runtime.tables import FollowedTables
from agent.runtime.wiring import monitor_handlers
from agent.telemetry import topics
from agent.telemetry.topic_watch import TopicWatch, shrunk_event
from agent.telemetry.watch import TelemetryWatch
from agent.web.health import HealthServer
from streams.kafka.liveness import Liveness

_FLUSH_WITHIN = 0.5
"""Seconds to write the records that no caller awaits, at the end. Steps of flips that are left are in the ledger."""

_WATCH_EVERY = 0.5

_logger = logging.getLogger(__name__)


class RoleFailed(FlipbackError):
    """A role ended or stood still: the process must end, and its supervisor start another."""


async def run(config: Config, roles: Sequence[Role], stop: asyncio.Event, *, ending: Deadline) -> None:
    """Run until `stop` is set or a role fails; then `ending` begins, and everything is stopped.

    Raises RoleFailed if a role ends by itself or stands still, TopicError if the brokers cannot be used.
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
                # Freeze long-lived objects: a full collection took 65 ms, stopped every thread and delayed flips.
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
    """The roles of this process. They exchange records through topics only."""

    def __init__(self, config: Config, roles: Sequence[Role]) -> None:
        self._context = ProcessContext.of(config, roles)
        self._roles = ProcessRoles()
        self._publisher = Publisher(self._context.topics, self._roles.write)
        self._ramps = Ramps(self._context.specs, self._publisher.event)
        self._tables = FollowedTables(self._context, self._roles, self._ramps)
        self._work = WorkSet(self._publisher.event)
        self._health = ProcessHealth(self._context, self._roles, self._tables, self._publisher, self._work)
        self._presence: Presence | None = None
        self._executor_work: ExecutorWork | None = None
        self._partitions: dict[str, int] = {}
        self._liveness: dict[Role, Liveness] = {}
        self.web = HealthServer(self._health.of_roles, self._arming, host=config.web.host, port=config.web.port)

    @contextlib.asynccontextmanager
    async def running(self, ending: Deadline) -> AsyncIterator[None]:
        """Start everything, and stop it in reverse: readers first, so that they begin nothing new."""
        context, client = self._context, self._context.connection.client
        self._partitions = dict(await topics.ready(context.config, client))
        await ensure_keys(context.config, context.roles)
        self._make_roles()
        presence = self._presence = self._make_presence()
        async with contextlib.AsyncExitStack() as stack:
            with ending:
                await self.web.start()
                stack.push_async_callback(self.web.stop)
                for topic in self._tables.reader:
                    self._work.begin(f"reading {topic}", partial(self._tables.reader.follow, topic), stack)
                await self._start_apps(stack)
                self._begin_work(presence, stack)
                self._begin_topic_watch(stack)
                yield

    def _make_roles(self) -> None:
        context, roles, publisher = self._context, self._roles, self._publisher
        if "ingest" in context.roles:
            roles.ingest = ingest_role(context, self._partitions, publisher)
        if "monitor" in context.roles:
            handlers = monitor_handlers(context, roles, self._tables.state, publisher, self._ramps)
            tables_read = self._tables.reader.read
            roles.monitor = monitor_role(context, self._partitions, publisher, handlers, tables_read)
        if "executor" in context.roles:
            roles.flips = Flips(context.config, emit=publisher.event, result=publisher.incident)
            work = self._executor_work = ExecutorWork(roles.flips, self._tables, publisher, context.topics.commands)
            roles.executor = executor_role(context, roles.flips, work.execute)

    def _make_presence(self) -> Presence:
        own = OwnProcess(
            apps=self._roles.apps,
            report=self._health.report,
            ages=self._tables.ages,
            partitions=self._partitions,
            ledger=None if self._roles.flips is None else self._roles.flips.ledger,
        )
        return Presence(self._context.config, self._context.roles, self._context.connection.client, own)

    async def _start_apps(self, stack: contextlib.AsyncExitStack) -> None:
        if self._roles.flips is not None:
            stack.push_async_callback(self._roles.flips.close)
        apps, outbox = self._roles.apps().values(), self._publisher.outbox
        for app in apps:
            app.finalize()
        stack.push_async_callback(outbox.close)
        stack.push_async_callback(lambda: asyncio.gather(*(app.stop() for app in apps)))
        await asyncio.gather(*(app.start() for app in apps))
        stack.push_async_callback(outbox.flush, _FLUSH_WITHIN)

    def _begin_work(self, presence: Presence, stack: contextlib.AsyncExitStack) -> None:
        """Begin what runs as long as the process, besides the roles."""
        work, publish = self._work, self._publisher.event
        work.begin("watching writes", self._publisher.watch, stack)
        work.begin("reading heartbeats", presence.follow, stack)
        stack.push_async_callback(presence.heart.leave)
        work.begin("publishing heartbeats", presence.heart.run, stack)
        if "monitor" in self._context.roles or "executor" in self._context.roles:
            work.begin("watching the others", partial(presence.watch, publish), stack)
        if self._roles.ingest is not None:
            counted = self._roles.ingest.ingest.counts.telemetry
            work.begin("watching telemetry", partial(TelemetryWatch().run, counted, publish), stack)
        if self._executor_work is not None:
            work.begin("watching flags", self._executor_work.watch_flags, stack)
            work.begin("telling what was done", self._executor_work.publish_results, stack)
            work.begin("checking backends", self._executor_work.check_backends, stack)

    def _begin_topic_watch(self, stack: contextlib.AsyncExitStack) -> None:
        apps = self._roles.apps()
        self._liveness = {role: Liveness(app, role, self._roles.owned(role)) for role, app in apps.items()}
        watch = self._health.topic_watch = TopicWatch(
            self._context.config,
            {role: app.conf.id for role, app in apps.items()},
            self._context.connection.client,
            self._publisher.event,
            self._liveness,
            self._resized,
        )
        self._work.begin("looking at topics", watch.run, stack)

    def _resized(self, topic: str, partitions: int) -> None:
        """Take in the number of partitions of a telemetry topic: exactly these need a reader and are waited for."""
        self._partitions[topic] = partitions
        monitor = self._roles.monitor
        shards = () if monitor is None else monitor.shards.values()
        had = [before for shard in shards if (before := shard.merge.resized(topic, partitions)) is not None]
        if had:
            self._publisher.event(shrunk_event(topic, max(had), partitions, at=time.time()))

    def _arming(self) -> Arming | None:
        return None if self._presence is None else self._presence.arming()

    async def ready(self) -> None:
        """Return when every role reads its topics."""
        # Faust reports an assignment through a callback of each app; polling is simpler than joining those.
        while not all(health.ready for health in self._health.of_roles().values()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def watch(self) -> None:
        """Raise RoleFailed as soon as a role has ended or stands still."""
        while True:
            tell_repeated()
            for role, app in self._roles.apps().items():
                if app.crashed or app.should_stop:
                    raise RoleFailed(f"{role} ended: {app.crash_reason!r}; see the log above")
            self._work.check()
            for liveness in self._liveness.values():
                stuck = liveness.stuck(time.monotonic())
                if stuck is not None:
                    raise RoleFailed(f"{stuck}; the process ends so that it is started anew")
            topic_watch = self._health.topic_watch
            unread = topic_watch and topic_watch.problems.hopeless(time.monotonic())
            if unread:
                raise RoleFailed(f"{unread}; the process ends so that it is started anew")
            await asyncio.sleep(_WATCH_EVERY)
