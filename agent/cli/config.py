"""`flipback config`: is a configuration right, and what may stand in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from agent.config import Config
from agent.config_load import check, render, rules_hash
from agent.config_schema import schema
from agent.errors import ConfigError
from detectors.grammar import format_condition, format_seconds
from detectors.spec import TriggerSpec


@click.group("config")
def command() -> None:
    """Check a configuration, or print its JSON Schema."""


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for programs.")
def check_command(file: Path, as_json: bool) -> int:
    """Say everything that is wrong with FILE, or what its triggers come to.

    Exit status 3 when anything is wrong.
    """
    config, problems = check(file)
    if as_json:
        found: dict[str, Any] = {"file": str(file), "ok": config is not None, "problems": problems}
        if config is not None:
            found |= {"rules_hash": rules_hash(config), "triggers": [_described(s) for s in config.trigger_specs()]}
        click.echo(msgspec.json.encode(found))
        return ConfigError.exit_code if config is None else 0
    if config is None:
        click.echo(render(file, problems), err=True)
        return ConfigError.exit_code
    _print(file, config)
    return 0


@command.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the configuration, for editors and for checks before a deployment."""
    click.echo(msgspec.json.format(msgspec.json.encode(schema()), indent=2))


def _print(file: Path, config: Config) -> None:
    specs = config.trigger_specs()
    click.echo(f"{file}: ok, rules {rules_hash(config)[:12]}")
    before = None
    for spec in specs:
        place = (spec.environment, spec.service, spec.flag)
        if place != before:
            click.echo(f"{spec.environment}/{spec.service}: {spec.flag}, safe {spec.safe_variant!r}")
        before = place
        does = f"{spec.action} (shadow)" if spec.shadow else spec.action
        baseline = "" if spec.baseline is None else f", baseline {spec.baseline:g}"
        click.echo(f"  {spec.name}: {format_condition(spec.condition)} -> {does}")
        grace = format_seconds(spec.unknown_grace)
        click.echo(f"      min_samples {spec.min_samples}, unknown_grace {grace}{baseline}")


def _described(spec: TriggerSpec) -> dict[str, Any]:
    return {
        "environment": spec.environment,
        "service": spec.service,
        "flag": spec.flag,
        "name": spec.name,
        "when": format_condition(spec.condition),
        "over": spec.condition.over,
        "for": spec.condition.hold,
        "min_samples": spec.min_samples,
        "unknown_grace": spec.unknown_grace,
        "threshold": spec.threshold,
        "action": spec.action,
        "shadow": spec.shadow,
        "safe": spec.safe_variant,
        "control": spec.control_variant,
    }
