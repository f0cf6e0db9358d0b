"""`flipback config`: is a configuration right, what does it come to, and what may stand in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
import msgspec

from agent.cli.options import Finite
from agent.config.baseline import NO_BASELINE, read_baseline
from agent.config.json_schema import schema
from agent.config.load import check, load, render, rules_hash
from agent.config.model import Config
from agent.config.slips import slip
from agent.config.triggers import fast_by_default
from agent.errors import ConfigError
from detectors.conditions.durations import format_seconds
from detectors.conditions.grammar import format_condition
from detectors.conditions.spec import TriggerSpec
from streams.settings import Seconds, WholeSeconds


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
            rates = _rates(config, rate)
            triggers = [
                {**_described(spec, rates.get((spec.environment, spec.service))), "note": note}
                for spec, note in zip(config.trigger_specs(), _notes(config, rates), strict=True)
            ]
            found |= {"rules_hash": rules_hash(config), "triggers": triggers}
        click.echo(msgspec.json.encode(found))
        return ConfigError.exit_code if config is None else 0
    if config is None:
        click.echo(render(file, problems), err=True)
        return ConfigError.exit_code
    _print(file, config, rate)
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


def shown(config: Config) -> Any:
    """The configuration as plain values, durations as they are written, without what may be secret in addresses."""
    return _plain(_filled(config))


def _filled(config: Config) -> Config:
    """With what an absent setting takes from others; `min_samples: auto` stays, as `check` tells what it comes to."""
    replace = msgspec.structs.replace
    flags = []
    for flag in config.flags:
        triggers = [
            replace(
                trigger,
                max_window=config.max_window if trigger.max_window is None else trigger.max_window,
                fast=fast_by_default(trigger.when.condition) if trigger.fast is None else trigger.fast,
                false_alarms=config.false_alarms if trigger.false_alarms is None else trigger.false_alarms,
                unknown_grace=config.unknown_grace if trigger.unknown_grace is None else trigger.unknown_grace,
                unknown_alert=config.unknown_alert if trigger.unknown_alert is None else trigger.unknown_alert,
            )
            for trigger in flag.triggers
        ]
        flags.append(replace(flag, control=flag.control or flag.safe, triggers=triggers))
    keys = replace(config.keys, signing_key=config.signing_key, public_keys=config.public_keys)
    return replace(config, flags=flags, keys=keys)


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = {info.encode_name: _plain(getattr(value, info.name)) for info in msgspec.structs.fields(type(value))}
        tag = type(value).__struct_config__
        return {str(tag.tag_field): tag.tag, **fields} if tag.tag_field else fields
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Seconds | WholeSeconds):
        return f"{value:.15g}s"
    if isinstance(value, Path):
        return str(value)
    return _without_secrets(str(value)) if isinstance(value, str) else value


def _without_secrets(text: str) -> str:
    """An address without its password and without its query, where tokens are put; any other text as it is."""
    parts = urlsplit(text)
    if not (parts.scheme and parts.netloc):
        return text
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    return urlunsplit(parts._replace(netloc=netloc, query="***" if parts.query else ""))


def _rates(config: Config, rate: float | None) -> dict[tuple[str, str], float]:
    """Requests a second of each (environment, service), where they are known: as given, or as stored."""
    stored = read_baseline(config.baseline) if config.baseline is not None and rate is None else NO_BASELINE
    places = {(flag.environment, flag.service) for flag in config.flags}
    known = {place: stored.value(*place, "throughput") if rate is None else rate for place in places}
    return {place: found for place, found in known.items() if found}


def _takes(spec: TriggerSpec, rate: float | None) -> float | None:
    """Seconds until a window has its samples, when the scope has `rate` requests a second."""
    return None if rate is None or not spec.min_samples else spec.min_samples / rate


def _samples(spec: TriggerSpec, rate: float | None) -> str:
    auto = "" if spec.max_window is None else f" (auto, windows up to {format_seconds(spec.windows[-1])})"
    takes = _takes(spec, rate)
    if takes is None:
        return f"min_samples {spec.min_samples}{auto}"
    never = ": longer than any window, so unknown" if takes > spec.windows[-1] else ""
    return f"min_samples {spec.min_samples}{auto}, in {max(takes, 1):.0f}s at {rate:g}/s{never}"


def _print(file: Path, config: Config, rate: float | None) -> None:
    specs, rates = config.trigger_specs(), _rates(config, rate)
    click.echo(f"{file}: ok, rules {rules_hash(config)[:12]}")
    before = None
    for spec, note in zip(specs, _notes(config, rates), strict=True):
        place = (spec.environment, spec.service, spec.flag)
        if place != before:
            click.echo(f"{spec.environment}/{spec.service}: {spec.flag}, safe {spec.safe_variant!r}")
        before = place
        does = f"{spec.action} (shadow)" if spec.shadow else spec.action
        baseline = "" if spec.baseline is None else f", baseline {spec.baseline:g}"
        click.echo(f"  {spec.name}: {format_condition(spec.condition)} -> {does}")
        grace = format_seconds(spec.unknown_grace)
        fast = f", fast: a false alarm in {format_seconds(spec.false_alarms)} at most" if spec.fast else ""
        needed = _samples(spec, rates.get((spec.environment, spec.service)))
        alert = format_seconds(spec.unknown_alert)
        click.echo(f"      {needed}, unknown_grace {grace}, unknown_alert {alert}{baseline}{fast}")
        if note is not None:
            click.echo(f"      note: {note}")


def _notes(config: Config, rates: dict[tuple[str, str], float]) -> list[str | None]:
    """What each trigger's limit was probably meant to be, in the order of `trigger_specs`."""
    written = {
        (flag.environment, flag.service, flag.flag, trigger.name): trigger.when
        for flag in config.flags
        for trigger in flag.triggers
    }
    return [
        slip(written[s.environment, s.service, s.flag, s.name], s, rates.get((s.environment, s.service)))
        for s in config.trigger_specs()
    ]


def _described(spec: TriggerSpec, rate: float | None) -> dict[str, Any]:
    return {
        "environment": spec.environment,
        "service": spec.service,
        "flag": spec.flag,
        "name": spec.name,
        "when": format_condition(spec.condition),
        "over": spec.condition.over,
        "for": spec.condition.hold,
        "min_samples": spec.min_samples,
        "windows": list(spec.windows),
        "samples_take_s": _takes(spec, rate),
        "fast": spec.fast,
        "false_alarms": spec.false_alarms,
        "unknown_grace": spec.unknown_grace,
        "unknown_alert": spec.unknown_alert,
        "threshold": spec.threshold,
        "action": spec.action,
        "shadow": spec.shadow,
        "safe": spec.safe_variant,
        "control": spec.control_variant,
    }
