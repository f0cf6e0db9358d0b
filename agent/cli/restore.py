"""`flipback restore`: put the flags of an incident back as they were before it."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.confirm import ReasonParam, confirm
from agent.cli.options import config_option
from agent.control.person import user


@click.command("restore")
@click.argument("incident")
@config_option
@click.option("--reason", type=ReasonParam(optional=True), default="", help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(incident: str, path: Path, reason: str, yes: bool) -> int:
    """Put the flag of INCIDENT, or each of its flags, back as it was before the flip, if nobody changed it since.

    Needs neither Kafka nor a running agent, but the state directory of the executor and access to the flag. The
    monitor goes on judging: if the fault is still there, the flag is flipped again.
    """
    import asyncio

    from agent.config.load import load
    from agent.control.restore import flipped, restore_each, used_ledger
    from agent.control.restore_lines import plan_lines, question, restored_line
    from agent.errors import FlipbackError

    config = load(path)
    ledger = used_ledger(config)
    entries = flipped(ledger, incident)
    click.echo("\n".join(plan_lines(entries)))
    if not yes:
        confirm(question(len(entries)))
    status = 0
    for entry, result in asyncio.run(restore_each(config, ledger, entries, reason=reason, by=user())):
        if isinstance(result, FlipbackError):
            click.echo(f"flipback: {entry.command.environment}/{entry.command.flag}: {result}", err=True)
            status = max(status, result.exit_code)
        else:
            click.echo(restored_line(entry, *result))
    return status
