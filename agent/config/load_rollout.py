"""From a rollout file to a Rollout, or to everything that is wrong with it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from agent.config import document as config_text
from agent.config.decode import Decoding
from agent.config.document import Problem
from agent.config.load import is_rollout_data, render
from agent.config.model import Config
from agent.config.rollout_file import Rollout
from agent.config.validate_rollout import check_rollout
from agent.errors import ConfigError


def is_rollout(path: Path) -> bool:
    """Return whether a file has a setting that only rollout files have; False for one that cannot be read."""
    return is_rollout_data(config_text.read(path).data)


def load_rollout(path: Path, config: Config) -> Rollout:
    """Read a rollout file. Raises ConfigError, whose text is every problem the file has."""
    rollout, problems = read_rollout(path, config)
    if rollout is None:
        raise ConfigError(render(path, problems))
    return rollout


def read_rollout(path: Path, config: Config) -> tuple[Rollout | None, list[Problem]]:
    """The rollout, or None and all problems in the order in which they stand in the file."""
    document = config_text.read(path)
    if document.problems:
        return None, document.problems
    decoding = Decoding(path.parent, document.marks)
    settings = decoding.fields(document.data, Rollout, "")
    if settings is not None:
        check_rollout(settings, config, decoding.note)
    if settings is None or decoding.problems:
        return None, sorted(decoding.problems, key=lambda problem: problem.line or 0)
    return Rollout(**settings), []


def spec_hash(rollout: Rollout) -> str:
    """Names a plan: 64 hexadecimal digits, the same for files that differ in comments and in defaults written out."""
    return hashlib.sha256(msgspec.json.encode(rollout, enc_hook=int, order="deterministic")).hexdigest()
