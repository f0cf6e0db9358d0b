"""YAML of a bounded size: what its aliases and nesting come to is known before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from agent.errors import ConfigError

DEEPEST = 100
"""Levels of nesting; a configuration has seven."""

MOST_ALIASED = 100_000
"""Values that aliases may stand for in all. Of 1,000 flags that each take 30 from `<<: *common` there are 30,000; in a
text of 600 bytes two to a level come to millions."""

MOST_BYTES = 16 * 1024 * 1024


class Excess(NamedTuple):
    """What is too much of a text, what to do about it, and the line where it becomes so."""

    message: str
    todo: str
    line: int


def excess(text: str) -> Excess | None:
    """What is too much of a text; None where nothing is. Raises YAMLError where it is no YAML.

    Events come without recursion; composing them recurses in C, where 100,000 brackets end the process.
    """
    sizes: dict[str, int] = {}
    # Anchor and size of each collection that is open, and of the whole text.
    open_: list[tuple[str | None, int]] = [(None, 0)]
    aliased = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        size = 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, 1))
            if len(open_) > DEEPEST + 1:
                return Excess(f"is nested more than {DEEPEST} levels deep", "close what is open above it", line)
            continue
        if isinstance(event, yaml.AliasEvent):
            # One that leads back into what contains it has no size yet, and is not followed.
            size = sizes.get(event.anchor or "", 1)
            aliased += size
            if aliased > MOST_ALIASED:
                return Excess(
                    f"its aliases stand for more than {MOST_ALIASED:,} values: *{event.anchor} for {size:,} of them",
                    "write out what it names, or name less",
                    line,
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_.pop()
            if anchor is not None:
                sizes[anchor] = size
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
        else:
            continue
        anchor, before = open_[-1]
        open_[-1] = anchor, before + size
    return None


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML or JSON file. Raises ConfigError where it cannot be read, or holds too much."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: it is larger than {MOST_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        too_much = excess(text)
        if too_much is not None:
            raise ConfigError(f"{path}:{too_much.line}: {too_much.message}; {too_much.todo}")
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
