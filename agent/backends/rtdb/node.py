"""A flag as a node of a Realtime Database: which part of it is the definition, and which says who wrote last.

The database keeps neither nulls nor empty objects and arrays, and hands out an object whose names are 0, 1, 2 and so on
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
"""The member of a flag's `metadata` that names the last operation; flagd's schema lets metadata hold any text."""

_LONGEST_KEY = 768
"""Bytes of UTF-8. This and the characters of a key: https://firebase.google.com/docs/database/usage/limits."""


class Node(NamedTuple):
    """A flag's node as it was read: the definition without the operation, the operation, and the node's ETag."""

    definition: dict[str, Any]
    operation: str | None
    etag: str


def check_key(key: str, what: str) -> str:
    """The key itself. Raises Invalid where the database cannot have it; there is no escape for what it forbids."""
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
    """Take a node apart. Raises Invalid where it is no flag."""
    if not isinstance(value, dict):
        raise Invalid(f"{where} is no object with the members of a flagd definition")
    definition = dict(value)
    for name in ("variants", "metadata"):
        if isinstance(definition.get(name), list):
            # Names 0, 1, 2: a null in an array is a name that is not there.
            definition[name] = {str(at): item for at, item in enumerate(definition[name]) if item is not None}
    metadata = definition.get("metadata")
    operation = None
    if isinstance(metadata, dict):
        operation = metadata.get(OPERATION)
        definition["metadata"] = {name: item for name, item in metadata.items() if name != OPERATION}
    return Node(kept(definition), operation if isinstance(operation, str) else None, etag)


def kept(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition as the database keeps it: an empty object is the same as none."""
    pruned: dict[str, Any] = _kept(definition) or {}
    return pruned


def content(definition: Mapping[str, Any], operation: str, where: str) -> bytes:
    """What is stored: the definition and who wrote it. Raises Invalid where that has no place in it."""
    metadata = definition.get("metadata", {})
    if not isinstance(metadata, dict):
        raise Invalid(f"{where}: its metadata is no object")
    return msgspec.json.encode({**definition, "metadata": {**metadata, OPERATION: operation}})


def state(definition: Mapping[str, Any]) -> FlagState:
    """What subjects get."""
    return FlagState(
        variant=flag_definition.variant(definition),
        percent=flag_definition.percent(definition),
        version=version(definition),
        raw=_text(definition).decode(),
    )


def version(definition: Mapping[str, Any]) -> str:
    """A name of the definition that depends neither on its writer nor on the order of its members."""
    return hashlib.sha256(_text(definition)).hexdigest()[:16]


def _forbidden(character: str) -> bool:
    # The last are halves of a character, which no UTF-8 can hold.
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
