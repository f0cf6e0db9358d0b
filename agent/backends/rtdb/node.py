"""A flag as a node of a Realtime Database: the definition, and the operation that wrote it last.

The database stores neither nulls nor empty objects and arrays, and returns an object whose names are 0, 1, 2 and so on
as an array (https://firebase.google.com/docs/database/admin/save-data, /docs/database/rest/structure-data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from agent.backends import flag_definition
from agent.backends.contract import FlagState
from agent.errors import Invalid

OPERATION = "flipback_op"
"""The member of a flag's `metadata` that names the last operation; flagd's schema allows any text in metadata."""

_LONGEST_KEY = 768
"""Bytes of UTF-8. This limit and the characters of a key: https://firebase.google.com/docs/database/usage/limits."""


class Node(NamedTuple):
    """A flag's node as it was read: the definition without the operation, the operation, and the node's ETag."""

    definition: dict[str, Any]
    operation: str | None
    etag: str


def check_key(key: str, what: str) -> str:
    """Return the key. Raises Invalid if the database cannot have it; forbidden characters cannot be escaped."""
    wrong = sorted({character for character in key if _forbidden(character)})
    if wrong:
        shown = " ".join(repr(character)[1:-1] for character in wrong)
        raise Invalid(
            f"{what} {key!r} holds {shown}: a key of the database has none of . $ # [ ] / and no control characters; "
            "name it otherwise"
        )
    if not 0 < len(key.encode()) <= _LONGEST_KEY:
        raise Invalid(f"{what} {key[:40]!r}: a key of the database has 1 to {_LONGEST_KEY} bytes")
    return key


def node(value: object, etag: str, where: str) -> Node:
    """Separate a node's definition from its operation. Raises Invalid if it is no flag."""
    if not isinstance(value, dict):
        raise Invalid(f"{where} is no object with the members of a flagd definition")
    definition = dict(value)
    for name in ("variants", "metadata"):
        if isinstance(definition.get(name), list):
            # An object with the names 0, 1, 2, returned as an array: a null in it is a name that does not exist.
            definition[name] = {str(at): item for at, item in enumerate(definition[name]) if item is not None}
    metadata = definition.get("metadata")
    operation = None
    if isinstance(metadata, dict):
        operation = metadata.get(OPERATION)
        definition["metadata"] = {name: item for name, item in metadata.items() if name != OPERATION}
    return Node(kept(definition), operation if isinstance(operation, str) else None, etag)


def kept(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definition as the database stores it: without nulls and empty objects."""
    pruned: dict[str, Any] = _kept(definition) or {}
    return pruned


def content(definition: Mapping[str, Any], operation: str, where: str) -> bytes:
    """Return what is stored: the definition and its operation. Raises Invalid if its metadata cannot hold that."""
    metadata = definition.get("metadata", {})
    if not isinstance(metadata, dict):
        raise Invalid(f"{where}: its metadata is no object")
    return msgspec.json.encode({**definition, "metadata": {**metadata, OPERATION: operation}})


def state(definition: Mapping[str, Any]) -> FlagState:
    """Return what subjects get by the definition."""
    return FlagState(
        variant=flag_definition.variant(definition),
        percent=flag_definition.percent(definition),
        version=version(definition),
        raw=_text(definition).decode(),
    )


def version(definition: Mapping[str, Any]) -> str:
    """Return a hash of the definition, which depends neither on its writer nor on the order of its members."""
    return hashlib.sha256(_text(definition)).hexdigest()[:16]


def _forbidden(character: str) -> bool:
    # The last range are surrogates, which UTF-8 cannot encode.
    return character in ".$#[]/\x7f" or character < " " or "\ud800" <= character <= "\udfff"


def _text(definition: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(definition, order="sorted")


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        members = {name: _kept(item) for name, item in value.items()}
        return {name: item for name, item in members.items() if item is not None} or None
    if isinstance(value, list):
        items = [_kept(item) for item in value]
        while items and items[-1] is None:
            items.pop()
        return items or None
    return value
