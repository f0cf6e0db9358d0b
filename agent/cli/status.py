"""`flipback status`: flags, incidents and verdicts as they are now."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click

SHOWN_INCIDENTS = 10


@click.command("status")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(path: Path, as_json: bool) -> int:
    """Show the state of every managed flag, the verdict of every trigger and the newest incidents.

    Reads flipback's topics; needs no running process. Exit status 1 where verdicts are not live.
    """
    import msgspec

    from agent.config_load import load
    from agent.status import read_status

    status = asyncio.run(read_status(load(path)))
    problems = status.problems
    if as_json:
        body = {
            "live": not problems,
            "problems": problems,
            "flags": status.flags,
            "triggers": status.triggers,
            "incidents": status.incidents[:SHOWN_INCIDENTS],
        }
        click.echo(msgspec.json.encode(body))
        return 1 if problems else 0
    click.echo("verdicts  " + ("live" if not problems else "NOT LIVE"))
    for problem in problems:
        click.echo(f"  ! {problem}")
    click.echo("flags")
    for flag in status.flags:
        state = "safe" if flag.safe else "in use"
        click.echo(f"  {flag.environment}/{flag.flag}: {flag.variant or 'mixed'} ({state}), version {flag.version}")
    click.echo("triggers")
    for trigger in status.triggers:
        value = "-" if trigger.value is None else f"{trigger.value:.6g}"
        limit = "-" if trigger.threshold is None else f"{trigger.threshold:.6g}"
        click.echo(
            f"  {trigger.state:8} {trigger.flag}/{trigger.trigger}  {trigger.scope}  value {value}, threshold {limit}, "
            f"{trigger.samples} samples  {trigger.reason}".rstrip()
        )
    click.echo("incidents" if status.incidents else "incidents  none")
    for incident in status.incidents[:SHOWN_INCIDENTS]:
        at = datetime.fromtimestamp(incident.commanded_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(
            f"  {at}  {incident.environment}/{incident.flag}/{incident.trigger}  {incident.outcome}  {incident.id}"
        )
    return 1 if problems else 0
