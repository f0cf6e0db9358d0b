"""`flipback topics`: the topics that flipback needs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from agent.cli.options import config_option


@click.group("topics")
def command() -> None:
    """Create flipback's topics, or show what would be created."""


@command.command("create")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def create(path: Path, as_json: bool) -> int:
    """Create the topics that are missing, telemetry topics too; those that exist are left as they are."""
    from agent.config.kafka import connection
    from agent.config.load import load
    from agent.telemetry.topics import lacking, wanted
    from streams.kafka.topics import create as create_topics

    config = load(path)
    made = asyncio.run(
        create_topics(wanted(config), replication=config.kafka.replication, connection=connection(config).client)
    )
    for reason in asyncio.run(lacking(config, connection(config).client)):
        click.echo(f"warning: {reason}", err=True)
    if as_json:
        click.echo(json.dumps({"created": made.created, "existing": made.existing, "partitions": made.partitions}))
        return 0
    for name, count in made.partitions.items():
        click.echo(f"{'created' if name in made.created else 'exists ':8} {name}, {count} partition{'s'[: count > 1]}")
    return 0


@command.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show(path: Path, as_json: bool) -> int:
    """Show every topic as flipback would create it: partitions, configuration, purpose. Asks no broker."""
    from agent.config.load import load
    from agent.telemetry.topics import wanted

    for spec in wanted(load(path)):
        if as_json:
            line = {"topic": spec.name, "partitions": spec.partitions, "config": spec.config, "purpose": spec.purpose}
            click.echo(json.dumps(line))
        else:
            settings = ", ".join(f"{key}={value}" for key, value in spec.config.items())
            click.echo(f"{spec.name:28} {spec.partitions:3}  {settings:40}  {spec.purpose}")
    return 0
