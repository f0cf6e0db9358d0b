"""A write to a fake Realtime Database: what a request of the REST interface makes of the tree."""

from __future__ import annotations

import secrets
import time
from typing import Any, NamedTuple

from agent.fakes.rtdb import tree
from agent.fakes.rtdb.tree import BadData, shown, stored


class TreeWrite(NamedTuple):
    """A valid write that is not made yet.

    `after` is the whole tree after it, `body` the answer. `kind` ("put" or "patch"), `path` and `data` are the event
    for listeners.
    """

    after: Any
    body: Any
    kind: str
    path: list[str]
    data: Any


def make_write(root: Any, method: str, path: list[str], value: Any) -> TreeWrite:
    """Return the write of a PUT, POST, PATCH or DELETE (with the value None) to the tree `root`.

    Raises BadData if the database cannot store the value.
    """
    now = now_ms()
    if method == "PATCH":
        if not isinstance(value, dict):
            raise BadData("Invalid data; couldn't parse JSON object.")
        after, changes = root, {}
        for name, item in value.items():
            if not name.strip("/") or not all(map(tree.is_key, names(name))):
                raise BadData("Invalid path: Invalid token in path")
            changes[name] = stored(item, now)
            after = tree.put(after, [*path, *names(name)], changes[name])
        return TreeWrite(after, {name: shown(item) for name, item in changes.items()}, "patch", path, changes)
    kept = stored(value, now)
    if method == "POST":
        # Sorts by time, like the real ones; the random part keeps two names of one millisecond apart.
        name = f"-N{now:012x}{secrets.token_hex(3)}"
        made = [*path, name]
        return TreeWrite(tree.put(root, made, kept), {"name": name}, "put", made, kept)
    return TreeWrite(tree.put(root, path, kept), shown(kept), "put", path, kept)


def names(path: str) -> list[str]:
    """Return the names of a path."""
    return [name for name in path.split("/") if name]


def now_ms() -> int:
    """Return the time in Unix milliseconds, which the database writes for a server value."""
    return time.time_ns() // 1_000_000
