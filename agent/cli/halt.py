"""`flipback halt` and `flipback resume`: whether flipback may turn flags back by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.confirm import ReasonParam, user
from agent.errors import FlipbackError

if TYPE_CHECKING:
    from agent.events.cloudevents import Event
    from agent.ledger.automation import Automation

_config = click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)


@click.command("halt")
@_config
@click.option("--reason", required=True, type=ReasonParam(), help="Why, for the audit log.")
def halt(path: Path, reason: str) -> None:
    """Halt: no flag is turned back without a person, until `flipback resume`.

    Needs neither Kafka nor a running agent, but the state directory of the executor. Everything is judged as before;
    commands are refused, at once and for as long as it takes. `flipback rollback` works all the same.
    """
    by, at = user(), time.time()
    made, last, where = _change(path, lambda automation: automation.halt(reason, by=by, at=at))
    if made is None and last is not None:
        since = datetime.fromtimestamp(last.time, UTC).isoformat(timespec="seconds")
        click.echo(
            f"halted already in {where}, by {last.data['by']} at {since}: {last.data['reason']}; that reason stays, "
            "yours was not written down"
        )
    else:
        click.echo(f"halted: no flag is turned back without a person by an executor with state_dir {where}")


@click.command("resume")
@_config
@click.option("--reason", required=True, type=ReasonParam(), help="Why, for the audit log.")
def resume(path: Path, reason: str) -> None:
    """Resume after a halt. Flips are counted anew from here on.

    Needs neither Kafka nor a running agent, but the state directory of the executor. A trigger that still fires sends
    its command again 5 s after the one that was refused has expired.
    """
    by, at = user(), time.time()
    made, _, where = _change(path, lambda automation: automation.resume(reason, by=by, at=at))
    if made is None:
        click.echo(f"it is not halted in {where}")
    else:
        click.echo(f"resumed in {where}; it was halted because: {made.data['halted_because']}")


def _change(path: Path, change: Callable[[Automation], Event | None]) -> tuple[Event | None, Event | None, Path]:
    """What was changed, None where nothing was, what holds now, and for which state directory.

    Raises FlipbackError where no executor has used that directory: the halt would stop nothing.
    """
    from agent.config.load import load
    from agent.executor.build import LEDGER
    from agent.ledger.automation import Automation

    state_dir = load(path).state_dir.absolute()
    if not os.path.lexists(state_dir / LEDGER):
        raise FlipbackError(
            f"nothing was changed: no executor has used state_dir {state_dir}, there is no ledger in it (or none that "
            "you may see); call this where the executor runs, as its user, with its configuration"
        )
    automation = Automation(state_dir)
    with automation.locked():
        return change(automation), automation.last(), state_dir
