"""Commands of a monitor whose triggers differ from the executor's file: executed, and reported.

Executing them is safe: the flag, its service, its backend and its safe variant are checked against the executor's own
file. But two files are in force, and the next command may be refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agent.commands.command import Command
from agent.heartbeats.heartbeat import Obstacle
from agent.logs.setup import log_event

SHOWN_FOR = 600.0
"""Seconds for which a difference keeps the deployment from being ARMED; by then an update of all processes is over."""

_logger = logging.getLogger(__name__)


class Skew:
    """Compares the rules hash of commands with the executor's own."""

    def __init__(self, rules: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._monotonic = monotonic
        self._other: str | None = None
        self._at = 0.0

    def note(self, command: Command) -> None:
        """Note a command that a known key has signed. A person's order is ignored: it follows no trigger."""
        if command.by_hand or command.rules_hash == self._rules:
            return
        self._other, self._at = command.rules_hash, self._monotonic()
        fields = {"command": command.id, "rules": command.rules_hash, "here": self._rules}
        log_event(_logger, "command.other-rules", level=logging.WARNING, **fields)

    def obstacles(self) -> list[Obstacle]:
        if self._other is None or self._monotonic() - self._at > SHOWN_FOR:
            return []
        return [
            Obstacle(
                what="configuration",
                why=f"a command came from a monitor with other triggers than this executor's file (rules "
                f"{self._other[:12]}, here {self._rules[:12]})",
                do="give all processes the same file and restart those that are older",
                waits=True,
            )
        ]
