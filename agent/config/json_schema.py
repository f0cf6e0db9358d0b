"""JSON Schemas of the configuration and of rollout files, for editors and for checks before a deployment."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from agent.config.flags import When
from agent.config.model import Config
from agent.config.rollout_file import Rollout
from detectors.conditions.durations import format_seconds
from streams.settings import Seconds, WholeSeconds

_NUMBER = r"(\d+(\.\d*)?|\.\d+)"
_TEXTS: dict[Any, dict[str, Any]] = {
    Path: {"type": "string", "minLength": 1},
    When: {"type": "string", "pattern": r"^\s*([a-z][^\s<>]*\s*[<>]\s*([-.0-9]|control\s*$)|absence@\S+\s*$)"},
    Seconds: {"type": "string", "pattern": rf"^({_NUMBER}(ms|d|h|m|s))+$", "examples": ["30s", "1.5s", "1m30s"]},
    WholeSeconds: {"type": "string", "pattern": rf"^({_NUMBER}(ms|d|h|m|s))+$", "examples": ["30s", "2m", "1m30s"]},
}


def schema(of: type[Config | Rollout] = Config) -> dict[str, Any]:
    """Return a schema, draft 2020-12. It checks shapes and names; `config check` checks conditions and the rest."""
    made = msgspec.json.schema(of, schema_hook=lambda kind: dict(_TEXTS[kind]))
    for struct in set(_structs(of)):
        properties = made["$defs"][struct.__name__]["properties"]
        for field in msgspec.structs.fields(struct):
            # msgspec leaves out defaults that a factory makes: those that are not plain JSON.
            if field.default_factory is not msgspec.NODEFAULT:
                properties[field.encode_name]["default"] = _written(field.default_factory())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"flipback {'rollout' if of is Rollout else 'configuration'}, flipback/v1",
        **made,
    }


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield every struct in a type, also inside other structs, lists, dicts and unions."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        for field in msgspec.structs.fields(kind):
            yield from _structs(field.type)
    elif get_origin(kind) is Annotated:
        yield from _structs(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType, list, dict):
        for inner in get_args(kind):
            yield from _structs(inner)


def _written(default: Any) -> Any:
    """Return a default as it would be written in the file."""
    if isinstance(default, Seconds | WholeSeconds):
        return format_seconds(int(default))
    if isinstance(default, list):
        return []
    # A struct of settings: each setting has a default of its own.
    return str(default) if isinstance(default, Path) else {}
