"""`flipback config`: check a configuration, show it with all defaults, or print its JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from agent.cli.options import Finite
from agent.config.json_schema import schema
from agent.config.load import check, load, render, rules_hash
from agent.config.load_rollout import is_rollout, read_rollout, spec_hash
from agent.config.model import Config
from agent.config.rollout_file import Rollout
from agent.config.rollout_plan import notes, plan, plan_lines, shortest
from agent.config.show import shown
from agent.config.starter import CONFIG_NAME
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
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help=f"Configuration of the flag, if FILE is a rollout; {CONFIG_NAME} beside it if absent.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for programs.")
def check_command(file: Path, rate: float | None, no_files: bool, path: Path | None, as_json: bool) -> int:
    """Say everything that is wrong with FILE, or what its triggers come to: how many samples each needs, and how long
    those take to come. Of a rollout file, how long each stage takes at least; nothing carries a rollout out yet.

    The keys and secrets that it names must be there: run it on a machine that has them all, or take `--no-files`.

    Exit status 3 when anything is wrong.
    """
    if path is not None or is_rollout(file):
        return _check_rollout(file, path or file.with_name(CONFIG_NAME), rate, as_json=as_json)
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


def _check_rollout(file: Path, path: Path, rate: float | None, *, as_json: bool) -> int:
    config, problems = check(path)
    if config is None:
        if as_json:
            click.echo(msgspec.json.encode({"file": str(path), "ok": False, "problems": problems}))
        else:
            click.echo(render(path, problems), err=True)
        return ConfigError.exit_code
    rollout, problems = read_rollout(file, config)
    if as_json:
        found: dict[str, Any] = {"file": str(file), "ok": rollout is not None, "problems": problems}
        if rollout is not None:
            stages = [stage.as_json() for stage in plan(rollout, rate)]
            found |= {"spec_hash": spec_hash(rollout), "stages": stages, "shortest_s": shortest(rollout, rate)}
            found["notes"] = list(notes(rollout, config, rate))
        click.echo(msgspec.json.encode(found))
    elif rollout is None:
        click.echo(render(file, problems), err=True)
    else:
        click.echo(f"{file}: ok, plan {spec_hash(rollout)[:12]}")
        for line in plan_lines(rollout, config, rate):
            click.echo(line)
    return ConfigError.exit_code if rollout is None else 0


@command.command("schema")
@click.option("--rollout", "of_rollout", is_flag=True, help="That of a rollout file.")
def schema_command(of_rollout: bool) -> None:
    """Print the JSON Schema of the configuration, for editors and for checks before a deployment."""
    click.echo(msgspec.json.format(msgspec.json.encode(schema(Rollout if of_rollout else Config)), indent=2))


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
def show_command(file: Path) -> None:
    """Print FILE with every default filled in, as JSON; null is what is not used, `auto` is told by `config check`.

    Secrets stand in files of their own and are not read.
    """
    click.echo(msgspec.json.format(msgspec.json.encode(shown(load(file))), indent=2))
