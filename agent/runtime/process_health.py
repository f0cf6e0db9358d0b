"""The health of this process: for probes, and for the other processes of the deployment."""

from __future__ import annotations

import time

from agent.deployment.presence import SelfReport
from agent.heartbeats.heartbeat import Role
from agent.runtime.context import ProcessContext
from agent.runtime.lasting_work import WorkSet
from agent.runtime.publisher import Publisher
from agent.runtime.role_health import health_of, obstacles_of, telemetry_of
from agent.runtime.roles import ProcessRoles
from agent.runtime.tables import FollowedTables
from agent.telemetry.topic_watch import TopicWatch
from agent.web.health import RoleHealth


class ProcessHealth:
    """Gathers what the parts of a process report. Nothing here waits."""

    def __init__(
        self,
        context: ProcessContext,
        roles: ProcessRoles,
        tables: FollowedTables,
        publisher: Publisher,
        work: WorkSet,
    ) -> None:
        self._context = context
        self._roles = roles
        self._tables = tables
        self._publisher = publisher
        self._work = work
        self.topic_watch: TopicWatch | None = None
        """None until the topics are watched."""

    def of_roles(self) -> dict[str, RoleHealth]:
        """The state of each role, for people and probes."""
        return {
            name: health_of(role, self._problems_of(name), covered=self._covered(name))
            for name, role in self._roles.present().items()
        }

    def report(self) -> SelfReport:
        """What the heartbeat of this process carries."""
        roles, flips = self._roles.present(), self._roles.flips
        unread = {role: self._unread(role) for role in roles}
        obstacles = obstacles_of(roles, flips, self._publisher.problems(), unread, self._tables.in_use())
        topics = [telemetry.topic for telemetry in self._context.config.telemetry]
        return SelfReport(
            obstacles=[*obstacles, *self._work.obstacles()],
            halted=None if flips is None else flips.halt,
            telemetry=telemetry_of(self._roles.ingest, topics),
        )

    def _problems_of(self, role: Role) -> list[str]:
        """What keeps a role from its work, although it reads or stands by."""
        problems = [*self._unread(role), *self._work.problems()]
        if role != "ingest":
            problems += self._publisher.problems()
        if role == "executor" and self._roles.flips is not None:
            problems += self._roles.flips.unreadable() or self._roles.flips.problems or []
        return problems

    def _unread(self, role: Role) -> list[str]:
        """What keeps a role from reading its topics, or from knowing the time."""
        problem = self._context.clock.now().problem
        problems = [] if self.topic_watch is None else self.topic_watch.problems.of(role, time.monotonic())
        return [*problems, problem] if problem else problems

    def _covered(self, role: Role) -> bool:
        """Do some processes read all partitions of the role?"""
        return self.topic_watch is not None and self.topic_watch.problems.covered(role)
