"""Reads a configuration file: a Config, or every problem that the file has."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import msgspec

from agent.config.decode import Decoding
from agent.config.document import Problem, read
from agent.config.model import Config
from agent.config.starter import CONFIG_NAME
from agent.config.validate import check_settings
from agent.config.validate_files import check_files
from agent.errors import ConfigError
from detectors.conditions.grammar import format_condition

__all__ = ["check", "load", "managed_hash", "render", "rules_hash"]

_ROLLOUT_ONLY = frozenset({"rollout", "stages", "variant", "gate"})
"""Settings of a rollout file that no configuration has."""


def load(path: Path) -> Config:
    """Read a YAML or TOML configuration. Relative paths in it are resolved against the file's directory.

    Raises ConfigError, whose text has every problem of the file.
    """
    config, problems = check(path)
    if config is None:
        raise ConfigError(render(path, problems))
    return config


def check(path: Path, *, files: bool = False) -> tuple[Config | None, list[Problem]]:
    """Return the configuration, or None and all problems in the order of the file.

    `files` also checks the files that it names, such as keys and secrets. Only a process of all roles needs them all.
    """
    document = read(path)
    if document.problems:
        return None, document.problems
    if (problem := _flags_file(path, document.data) or _rollout_file(path, document.data)) is not None:
        return None, [problem]
    decoding = Decoding(path.parent, document.marks)
    settings = decoding.fields(document.data, Config, "")
    if settings is not None:
        check_settings(settings, decoding.note)
        if files:
            check_files(settings, decoding.note)
    if settings is None or decoding.problems:
        # The sort is stable: problems without a line, as in TOML, stay in the order of the checks.
        return None, sorted(decoding.problems, key=lambda problem: problem.line or 0)
    # The decoder resolves paths against the file's directory, but not the default of `state_dir`.
    settings["state_dir"] = path.parent / settings["state_dir"]
    return Config(**settings), []


def is_rollout_data(data: object) -> bool:
    """Return whether a document has a setting that only rollout files have."""
    return isinstance(data, dict) and not data.keys().isdisjoint(_ROLLOUT_ONLY)


def _rollout_file(path: Path, data: object) -> Problem | None:
    """Return a problem if the file is a rollout file, whose problems as a configuration would mislead."""
    if not is_rollout_data(data):
        return None
    return Problem(
        "", "is a rollout file, not a configuration", f"check it: flipback config check {path} -c {CONFIG_NAME}"
    )


def _flags_file(path: Path, data: object) -> Problem | None:
    """Return a problem if the file is flagd's file of flags, which lies beside the configuration and is easily named
    instead. The problems that it has as a configuration would mislead.
    """
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
    """Return the problems as text: `file:line: path: what is wrong`, the excerpt, what to do."""
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
    """Return a hash of the rules that verdicts follow: 64 hexadecimal digits.

    It changes with all that a verdict or its action depends on. It does not change with the order of flags and
    triggers, with defaults that are written out, or with the location of files.
    """
    specs = sorted(config.trigger_specs(), key=lambda spec: (spec.environment, spec.flag, spec.name))
    rules = [{**asdict(spec), "condition": format_condition(spec.condition)} for spec in specs]
    for rule in rules:
        # It decides when an unknown verdict is reported, not what the verdict is.
        del rule["unknown_alert"]
    times = {
        "evaluate_every": float(config.evaluate_every),
        "max_lateness": float(config.max_lateness),
        "catching_up_after": float(config.catching_up_after),
    }
    text = msgspec.json.encode({"rules": rules, "times": times}, order="deterministic")
    return hashlib.sha256(text).hexdigest()


def managed_hash(config: Config) -> str:
    """Return a hash of what an executor may write: the managed flags, their backends, safe variants and groups; 64
    hexadecimal digits.

    Two processes with equal rules may differ in it. Then one refuses the commands of the other.
    """
    flags = sorted(
        (flag.environment, flag.flag, flag.service, flag.backend, flag.safe, sorted(flag.together))
        for flag in config.flags
    )
    return hashlib.sha256(msgspec.json.encode(flags)).hexdigest()
