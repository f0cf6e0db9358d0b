"""`flipback halt` and `flipback resume`: whether flipback may turn flags back by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.automation import Automation
    from agent.events import Event

_config = click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)


@click.command("halt")
@_config
@click.option("--reason", required=True, help="Why, for the audit log.")
def halt(path: Path, reason: str) -> None:
    """Halt: no flag is turned back without a person, until `flipback resume`.

    Needs neither Kafka nor a running agent, but the state directory of the executor. Everything is judged as before;
    commands are refused, at once and for as long as it takes. `flipback rollback` works all the same.
    """
    by, at = _who_and_when()
    made, last = _change(path, lambda automation: automation.halt(reason, by=by, at=at))
    if made is None and last is not None:
        click.echo(f"halted already, by {last.data['by']}: {last.data['reason']}")
    else:
        click.echo("halted: no flag is turned back without a person")


@click.command("resume")
@_config
@click.option("--reason", required=True, help="Why, for the audit log.")
def resume(path: Path, reason: str) -> None:
    """Resume after a halt. Flips are counted anew from here on.

    Needs neither Kafka nor a running agent, but the state directory of the executor. A trigger that still fires sends
    its command again 5 s after the one that was refused has expired.
    """
    by, at = _who_and_when()
    made, _ = _change(path, lambda automation: automation.resume(reason, by=by, at=at))
    if made is None:
        click.echo("it is not halted")
    else:
        click.echo(f"resumed; it was halted because: {made.data['halted_because']}")


def _who_and_when() -> tuple[str, float]:
    import getpass
    import time

    return getpass.getuser(), time.time()


def _change(path: Path, change: Callable[[Automation], Event | None]) -> tuple[Event | None, Event | None]:
    """What was changed, None where nothing was, and what holds now."""
    from agent.automation import Automation
    from agent.config_load import load

    automation = Automation(load(path).state_dir)
    with automation.locked():
        return change(automation), automation.last()
