"""`flipback status`: flags, incidents and verdicts as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.incidents import Aftermath, Incident

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
    problems, shown = status.problems, status.incidents[:SHOWN_INCIDENTS]
    if as_json:
        body = {
            "live": not problems,
            "problems": problems,
            "flags": status.flags,
            "triggers": status.triggers,
            "incidents": shown,
            "aftermaths": [said for incident in shown for said in status.after(incident)],
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
    for incident in shown:
        at = datetime.fromtimestamp(incident.commanded_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = "".join(f"  {text}" for text in after_flip(incident, status.after(incident)))
        name = f"{incident.environment}/{incident.flag}/{incident.trigger}"
        click.echo(f"  {at}  {name}  {incident.outcome}{said}  {incident.id}")
    return 1 if problems else 0


def after_flip(incident: Incident, said: Sequence[Aftermath]) -> Iterator[str]:
    """What was said after an incident's flip, a few words a service; of other services than its own their name too."""
    for one in said:
        where = "" if one.service == incident.service else f" in {one.service}"
        if one.effect is not None:
            yield ("effect unknown" if one.effect == "unknown" else one.effect) + where
        if one.bake is not None:
            yield {"recovered": "recovered", "unknown": "recovery unknown"}.get(one.bake, f"not recovered: {one.bake}")
