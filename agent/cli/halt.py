"""`flipback halt` and `flipback resume`: whether flipback may turn flags back by itself."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.confirm import ReasonParam
from agent.cli.options import config_option
from agent.control.person import user


@click.command("halt")
@config_option
@click.option("--reason", required=True, type=ReasonParam(), help="Why, for the audit log.")
def halt(path: Path, reason: str) -> None:
    """Halt: no flag is turned back without a person, until `flipback resume`.

    Needs neither Kafka nor a running agent, but the state directory of the executor. Everything is judged as before;
    commands are refused, at once and for as long as it takes. `flipback rollback` works all the same.
    """
    from agent.config.load import load
    from agent.control import halt as control

    click.echo(control.halt_line(control.halt(load(path), reason, by=user())))


@click.command("resume")
@config_option
@click.option("--reason", required=True, type=ReasonParam(), help="Why, for the audit log.")
def resume(path: Path, reason: str) -> None:
    """Resume after a halt. Flips are counted anew from here on.

    Needs neither Kafka nor a running agent, but the state directory of the executor. A trigger that still fires sends
    its command again 5 s after the one that was refused has expired.
    """
    from agent.config.load import load
    from agent.control import halt as control

    click.echo(control.resume_line(control.resume(load(path), reason, by=user())))
