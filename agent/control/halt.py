"""A person's halt of the automation, and its end. Needs the state directory of the executor and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from agent.config.model import Config
from agent.errors import FlipbackError
from agent.events.cloudevents import Event
from agent.executor.build import LEDGER
from agent.ledger.automation import Automation


class Switched(NamedTuple):
    """What a halt or a resumption did. `made` is its event, None if nothing changed; `last` is the newest of all."""

    made: Event | None
    last: Event | None
    state_dir: Path


def halt(config: Config, reason: str, *, by: str) -> Switched:
    """Halt every executor with this state directory. Raises FlipbackError if no executor has used it."""
    at = time.time()
    return _switch(config, lambda automation: automation.halt(reason, by=by, at=at))


def resume(config: Config, reason: str, *, by: str) -> Switched:
    """End a halt. Raises FlipbackError if no executor has used the state directory."""
    at = time.time()
    return _switch(config, lambda automation: automation.resume(reason, by=by, at=at))


def _switch(config: Config, change: Callable[[Automation], Event | None]) -> Switched:
    state_dir = config.state_dir.absolute()
    # Without a ledger no executor reads this directory: a halt there would stop nothing.
    if not os.path.lexists(state_dir / LEDGER):
        raise FlipbackError(
            f"nothing was changed: no executor has used state_dir {state_dir}, there is no ledger in it (or none that "
            "you may see); call this where the executor runs, as its user, with its configuration"
        )
    automation = Automation(state_dir)
    with automation.locked():
        return Switched(change(automation), automation.last(), state_dir)


def halt_line(done: Switched) -> str:
    """Return what a halt did in words."""
    if done.made is None and done.last is not None:
        last = done.last
        since = datetime.fromtimestamp(last.time, UTC).isoformat(timespec="seconds")
        return (
            f"halted already in {done.state_dir}, by {last.data['by']} at {since}: {last.data['reason']}; that reason "
            "stays, yours was not written down"
        )
    return f"halted: no flag is turned back without a person by an executor with state_dir {done.state_dir}"


def resume_line(done: Switched) -> str:
    """Return what a resumption did in words."""
    if done.made is None:
        return f"it is not halted in {done.state_dir}"
    return f"resumed in {done.state_dir}; it was halted because: {done.made.data['halted_because']}"
