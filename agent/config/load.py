"""From a configuration file to a Config, or to everything that is wrong with it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import msgspec

from agent.config import document as config_text
from agent.config import validate as config_rules
from agent.config import validate_files as config_backends
from agent.config.decode import Decoding
from agent.config.document import Problem
from agent.config.model import Config
from agent.config.starter import CONFIG_NAME
from agent.errors import ConfigError
from detectors.conditions.grammar import format_condition

__all__ = ["check", "load", "managed_hash", "render", "rules_hash"]


def load(path: Path) -> Config:
    """Read a YAML or TOML configuration, its paths made relative to the file's directory.

    Raises ConfigError, whose text is every problem the file has.
    """
    config, problems = check(path)
    if config is None:
        raise ConfigError(render(path, problems))
    return config


def check(path: Path, *, files: bool = False) -> tuple[Config | None, list[Problem]]:
    """The configuration, or None and all its problems in the order in which they stand in the file.

    `files` looks for the files that it names too, as keys and secrets, all of which only a process of all roles needs.
    """
    document = config_text.read(path)
    if document.problems:
        return None, document.problems
    if (mistaken := _mistaken(path, document.data)) is not None:
        return None, [mistaken]
    decoding = Decoding(path.parent, document.marks)
    settings = decoding.fields(document.data, Config, "")
    if settings is not None:
        config_rules.check(settings, decoding.note)
        if files:
            config_backends.check_files(settings, decoding.note)
    if settings is None or decoding.problems:
        # What has no line, as in TOML, stays in the order of the checks.
        return None, sorted(decoding.problems, key=lambda problem: problem.line or 0)
    # A default has not been through the decoder, which makes paths relative to the file.
    settings["state_dir"] = path.parent / settings["state_dir"]
    return Config(**settings), []


def _mistaken(path: Path, data: object) -> Problem | None:
    """Is it the file of flags instead, which lies beside the configuration? What it lacks as one would mislead."""
    if not isinstance(data, dict) or not isinstance(data.get("flags"), dict):
        return None
    if {info.encode_name for info in msgspec.structs.fields(Config)}.intersection(data) != {"flags"}:
        return None
    beside = path.with_name(CONFIG_NAME)
    known = f", {beside}" if beside != path and beside.is_file() else f", such as {CONFIG_NAME}"
    return Problem(
        "",
        "looks like a file of flags in flagd's format, not like a configuration of flipback",
        f"name the configuration{known}; this file is named in it, as `path` under `backends`",
    )


def render(path: Path, problems: list[Problem]) -> str:
    """Problems for a person: `file:line: path: what is wrong`, the excerpt, what to do."""
    lines = []
    for problem in problems:
        where = f"{path}:{problem.line}" if problem.line else str(path)
        lines.append(": ".join(part for part in (where, problem.path, problem.message) if part))
        if problem.excerpt:
            lines += ["  " + line for line in problem.excerpt.split("\n")]
        lines.append(f"    {problem.todo}")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([*lines, f"{count} in {path}"])


def rules_hash(config: Config) -> str:
    """Names the rules by which verdicts are made: 64 hexadecimal digits.

    It changes with anything a verdict or its action depends on, and not with the order of flags and triggers, with
    defaults written out, or with where files lie.
    """
    specs = sorted(config.trigger_specs(), key=lambda spec: (spec.environment, spec.flag, spec.name))
    rules = [{**asdict(spec), "condition": format_condition(spec.condition)} for spec in specs]
    for rule in rules:
        # It decides when a person hears of a verdict, not what the verdict is.
        del rule["unknown_alert"]
    times = {
        "evaluate_every": float(config.evaluate_every),
        "max_lateness": float(config.max_lateness),
        "catching_up_after": float(config.catching_up_after),
    }
    text = msgspec.json.encode({"rules": rules, "times": times}, order="deterministic")
    return hashlib.sha256(text).hexdigest()


def managed_hash(config: Config) -> str:
    """Names what an executor may write: the managed flags, where each is kept and its safe variant; 64 hexadecimal
    digits.

    Two processes whose rules are the same may differ in it, and then one refuses the commands of the other.
    """
    flags = sorted(
        (flag.environment, flag.flag, flag.service, flag.backend, flag.safe, sorted(flag.together))
        for flag in config.flags
    )
    return hashlib.sha256(msgspec.json.encode(flags)).hexdigest()
