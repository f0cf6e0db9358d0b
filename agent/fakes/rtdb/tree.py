"""The data of a fake Realtime Database: a tree that stores and returns values as the real database does.

A tree is immutable: a write makes another one, which shares the unchanged parts. Nulls and empty objects are not
stored, arrays are stored as objects with the names 0, 1, 2 and so on
(https://firebase.google.com/docs/database/rest/structure-data).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from agent.errors import FlipbackError

NULL_ETAG = "null_etag"
"""The ETag of a missing value."""

_KEY = re.compile(r"[^.$#\[\]/\x00-\x1f\x7f]+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class BadData(FlipbackError):
    """A value that the database cannot store; the text is the database's own message."""


def stored(value: Any, now_ms: int) -> Any:
    """Return a JSON value as it is stored, None if nothing is. Raises BadData if a key or server value is invalid."""
    if isinstance(value, list):
        value = {str(at): item for at, item in enumerate(value)}
    if not isinstance(value, dict):
        return value
    if ".sv" in value:
        if value != {".sv": "timestamp"}:
            raise BadData("Invalid data; couldn't parse server value.")
        return now_ms
    for name in value:
        if not is_key(name):
            raise BadData("Invalid data; couldn't parse key. Key value can't be empty or contain $ # [ ] / or .")
    members = {name: stored(item, now_ms) for name, item in value.items()}
    return {name: item for name, item in members.items() if item is not None} or None


def is_key(name: str) -> bool:
    return _KEY.fullmatch(name) is not None and len(name.encode(errors="replace")) <= 768


def get(tree: Any, path: Sequence[str]) -> Any:
    """Return what is stored at a path, None if nothing is."""
    for name in path:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(name)
    return tree


def put(tree: Any, path: Sequence[str], value: Any) -> Any:
    """Return the tree with a stored value at a path. Its parents become objects, and are removed if they are empty."""
    if not path:
        return value
    name, *rest = path
    members = dict(tree) if isinstance(tree, dict) else {}
    child = put(members.get(name), rest, value)
    if child is None:
        members.pop(name, None)
    else:
        members[name] = child
    return members or None


def shown(value: Any) -> Any:
    """Return a stored value as clients get it: sorted by name.

    It is an array if all names are numbers and more than half of them exist.
    """
    if not isinstance(value, dict):
        return value
    if all(_INDEX.fullmatch(name) for name in value):
        length = max(map(int, value)) + 1
        if length - 1 < 2 * len(value):
            return [shown(value.get(str(at))) for at in range(length)]
    return {name: shown(value[name]) for name in sorted(value)}


def etag(value: Any) -> str:
    """Return a hash of the content: a value that was changed and changed back has its former ETag."""
    if value is None:
        return NULL_ETAG
    digest = hashlib.sha1(msgspec.json.encode(value, order="sorted"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()
