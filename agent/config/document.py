"""Reads a configuration file as plain data, with the line of each value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from agent.config.yaml_text import MOST_BYTES, excess


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the file. `path` is like `flags[0].triggers[1].when`, empty for the whole file.

    `message` is what was found and what was expected, `todo` how to fix it. `excerpt` is a value with carets below it.
    """

    path: str
    message: str
    todo: str
    line: int | None = None
    excerpt: str | None = None


class Note(Protocol):
    """Adds a Problem: its path, what is wrong, what to do, and a value with carets below it."""

    def __call__(self, path: str, message: str, todo: str, excerpt: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value is in the file: the line of its name, from 1, and the text of a scalar as it is written."""

    line: int
    written: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """What was read from a file: `data`, or the `problems` that prevented it. `marks` are by path, for YAML only."""

    data: Any = None
    marks: Mapping[str, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def join(path: str, key: str) -> str:
    """Return the path of a key in the mapping at `path`."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def read(path: Path) -> ConfigDocument:
    """Read a YAML or TOML file, by its suffix. Never raises: what is wrong with the file is in `problems`."""
    if path.suffix not in (".yaml", ".yml", ".json", ".toml"):
        what = f"its name ends in {path.suffix}" if path.suffix else "its name has no ending"
        return _broken(f"{what}: neither YAML nor TOML", "name it .yaml, .yml, .json or .toml, as it is written")
    try:
        if path.stat().st_size > MOST_BYTES:
            return _broken(f"is larger than {MOST_BYTES:,} bytes", "is this the configuration? It was not read")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return _broken(f"cannot be read: {error.strerror}", "name a file that exists and that this user may read")
    except UnicodeDecodeError as error:
        return _broken(f"is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}", "save it as UTF-8")
    return _toml(text) if path.suffix == ".toml" else _yaml(text)


def _broken(message: str, todo: str, line: int | None = None) -> ConfigDocument:
    return ConfigDocument(problems=[Problem("", message, todo, line)])


def _toml(text: str) -> ConfigDocument:
    try:
        return ConfigDocument(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        return _broken(f"is not TOML: {error}", "correct it there")
    except RecursionError:
        return _broken("is nested too deep", "correct it")


def _yaml(text: str) -> ConfigDocument:
    try:
        if (too_much := excess(text)) is not None:
            return _broken(*too_much)
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return ConfigDocument()
            document = ConfigDocument(marks={}, problems=[])
            _walk(node, "", node.start_mark.line + 1, document, set())
            if document.problems:
                return document
            return ConfigDocument(loader.construct_document(node), document.marks)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return _broken(f"is not YAML: {what}", "correct it there", mark.line + 1 if mark else None)
    except yaml.YAMLError as error:
        return _broken(f"is not YAML: {error}", "correct it")


def _walk(node: yaml.Node, path: str, line: int, document: ConfigDocument, seen: set[int]) -> None:
    """Record the line of every value. A key that is written twice is a problem: YAML would silently keep the last."""
    marks: dict[str, Mark] = document.marks  # type: ignore[assignment]
    marks[path] = Mark(line, node.value if isinstance(node, yaml.ScalarNode) else None)
    # An alias may refer to a collection that contains it.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, f"{path}[{index}]", item.start_mark.line + 1, document, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                message = "expected a name as key, found a collection"
                document.problems.append(Problem(path, message, "use a word", line))
                continue
            inner = join(path, key.value)
            if key.value in lines:
                message = f"stands twice, first in line {lines[key.value]}"
                document.problems.append(Problem(inner, message, "leave one of the two", line))
            lines[key.value] = line
            _walk(value, inner, line, document, seen)
