"""The topics of flags, incidents and healthy rates, read into tables and handed to the roles."""

from __future__ import annotations

import time

from agent.armed.view import FlagKey
from agent.decisions.ramp import Ramps
from agent.runtime.context import ProcessContext
from agent.runtime.roles import ProcessRoles
from agent.state.state_tables import StateTables
from agent.state.table_reader import TableReader


class FollowedTables:
    """Keeps `state` up to its topics, and hands each flag's state to the roles and to `ramps`."""

    def __init__(self, context: ProcessContext, roles: ProcessRoles, ramps: Ramps) -> None:
        self._roles = roles
        self._ramps = ramps
        self.state = StateTables(lambda: context.clock.now().latest)
        take = {context.topics.incidents: self.state.incident, context.topics.flags: self._take_flag}
        if "monitor" in context.roles:
            take[context.topics.healthy] = self._take_healthy_rate
        self.reader = TableReader(take, context.connection.client)

    def ages(self) -> dict[FlagKey, float] | None:
        """How many seconds ago an executor read each flag; None until the tables have been read."""
        if not self.reader.read.is_set():
            return None
        now = time.time()
        return {name: now - status.at for name, status in self.state.flags.items()}

    def in_use(self) -> set[FlagKey]:
        """The flags that are not in their safe state."""
        return {name for name, status in self.state.flags.items() if not status.safe}

    def _take_flag(self, value: bytes | None) -> None:
        status = self.state.flag(value)
        if status is None:
            return
        if self._roles.flips is not None:
            self._roles.flips.prime(status)
        status = self.state.flags[status.environment, status.flag]
        self._ramps.update(status)
        if self._roles.monitor is not None:
            share = None if status.percent is None else status.percent / 100
            self._roles.monitor.flag_changed(
                status.environment, status.flag, status.changed_at, share, safe=status.safe
            )

    def _take_healthy_rate(self, value: bytes | None) -> None:
        if self._roles.monitor is not None:
            self._roles.monitor.take_healthy_rate(value)
