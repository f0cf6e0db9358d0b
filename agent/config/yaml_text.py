"""Reads YAML of a bounded size: aliases and nesting are counted before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from agent.errors import ConfigError

DEEPEST = 100
"""Levels of nesting; a configuration has seven."""

MOST_ALIASED = 100_000
"""Values that all aliases together may stand for. 1,000 flags that each take 30 settings from `<<: *common` need
30,000; a text of 600 bytes whose aliases double at each level stands for millions."""

MOST_BYTES = 16 * 1024 * 1024


class Excess(NamedTuple):
    """What a text has too much of, what to do about it, and the line where the bound is passed."""

    message: str
    todo: str
    line: int


def excess(text: str) -> Excess | None:
    """Return what a text has too much of, None if nothing. Raises YAMLError if it is not YAML.

    It reads the parser's events, which need no recursion. Composing recurses in C: 100,000 brackets end the process.
    """
    sizes: dict[str, int] = {}
    # The anchor and the size so far of each open collection; the first is the whole text.
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
            # An alias to a collection that contains it counts once: that collection has no size yet.
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
    """Return the plain values of a YAML or JSON file. Raises ConfigError if it cannot be read or has too much."""
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
