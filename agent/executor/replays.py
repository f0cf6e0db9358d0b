"""Replayed commands: anybody who can write to the commands topic can copy an old, signed command.

The first answer stands, so copies are dropped without reading the ledger, which takes a millisecond each.
"""

from __future__ import annotations

import hashlib

from agent.commands.command import Reason
from agent.executor.result import ExecutionResult

_MOST = 10_000
_FINAL = (Reason.DUPLICATE, Reason.EXPIRED)


class Replays:
    """Remembers bytes that were refused as `duplicate` or `expired`, the newest ten thousand."""

    def __init__(self) -> None:
        self._known: dict[bytes, None] = {}

    def known(self, raw: bytes) -> bool:
        return _digest(raw) in self._known

    def note(self, raw: bytes, result: ExecutionResult) -> None:
        if result.final and result.reason in _FINAL:
            self._known[_digest(raw)] = None
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()
