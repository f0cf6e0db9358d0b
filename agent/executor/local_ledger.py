"""Reads the flips in the ledger of this machine, for the command line; creates and writes nothing."""

from __future__ import annotations

import os
from typing import NamedTuple

from agent.config.model import Config
from agent.errors import LedgerError
from agent.events.cloudevents import Event
from agent.executor.build import LEDGER
from agent.ledger.ledger import Ledger


class Local(NamedTuple):
    """The steps of all flips, in no order, and those that are not known to be in the audit log."""

    events: list[Event]
    pending: list[Event]


def local_events(config: Config) -> Local:
    """Read the ledger in the state directory; empty if there is none, or none that this user may read."""
    directory = config.state_dir / LEDGER
    # Opening a ledger would create its directory.
    if not os.path.isdir(directory):
        return Local([], [])
    try:
        entries = list(Ledger(directory).entries())
    except LedgerError:
        return Local([], [])
    return Local([e for entry in entries for e in entry.events], [e for entry in entries for e in entry.pending])
