"""`flipback status`: flags, incidents and verdicts as they are now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from agent.cli.options import config_option


@click.command("status")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(path: Path, as_json: bool) -> int:
    """Say whether a flip would happen now: ARMED, or NOT ARMED, why, and what to do. Then show the state of every
    managed flag, the verdict of every trigger and the newest incidents.

    Reads flipback's topics; needs no running process. Exit status 0 where it is armed, else 1.
    """
    import msgspec

    from agent.config.load import load
    from agent.deployment.status_report import read_report
    from streams.errors import TopicError

    config = load(path)
    try:
        report = asyncio.run(read_report(config))
    except TopicError as error:
        unread = {"armed": False, "obstacles": [{"what": "kafka", "why": str(error)}]}
        click.echo(msgspec.json.encode(unread) if as_json else f"NOT ARMED: {error}")
        return 1
    if as_json:
        click.echo(msgspec.json.encode(report.as_json()))
    else:
        for line in report.lines():
            click.echo(line)
    return 0 if report.arming.armed else 1
