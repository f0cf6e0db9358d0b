"""`flipback config`: check a configuration, show it with all defaults, or print its JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from agent.cli.options import Finite
from agent.config.json_schema import schema
from agent.config.load import check, load, render, rules_hash
from agent.config.show import shown
from agent.config.summary import summarize, summary_lines
from agent.errors import ConfigError


@click.group("config")
def command() -> None:
    """Check a configuration, show it whole, or print its JSON Schema."""


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--rate",
    type=Finite(min=0, min_open=True),
    help="Requests/s to tell how long samples take to come; the stored throughput if absent.",
)
@click.option("--no-files", is_flag=True, help="Do not look for the keys and secrets that it names.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for programs.")
def check_command(file: Path, rate: float | None, no_files: bool, as_json: bool) -> int:
    """Say everything that is wrong with FILE, or what its triggers come to: how many samples each needs, and how long
    those take to come.

    The keys and secrets that it names must be there: run it on a machine that has them all, or take `--no-files`.

    Exit status 3 when anything is wrong.
    """
    config, problems = check(file, files=not no_files)
    if as_json:
        found: dict[str, Any] = {"file": str(file), "ok": config is not None, "problems": problems}
        if config is not None:
            triggers = [trigger.as_json() for trigger in summarize(config, rate)]
            found |= {"rules_hash": rules_hash(config), "triggers": triggers}
        click.echo(msgspec.json.encode(found))
        return ConfigError.exit_code if config is None else 0
    if config is None:
        click.echo(render(file, problems), err=True)
        return ConfigError.exit_code
    click.echo(f"{file}: ok, rules {rules_hash(config)[:12]}")
    for line in summary_lines(summarize(config, rate)):
        click.echo(line)
    return 0


@command.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the configuration, for editors and for checks before a deployment."""
    click.echo(msgspec.json.format(msgspec.json.encode(schema()), indent=2))


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
def show_command(file: Path) -> None:
    """Print FILE with every default filled in, as JSON; null is what is not used, `auto` is told by `config check`.

    Secrets stand in files of their own and are not read.
    """
    click.echo(msgspec.json.format(msgspec.json.encode(shown(load(file))), indent=2))
