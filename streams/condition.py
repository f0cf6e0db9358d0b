"""Whether a shard may act, and the reason if it may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Status = Literal["live", "catching_up", "unknown"]

_NAMED = 3


def shortened(names: Sequence[str], by: str = ", ") -> str:
    """The first three names and how many more there are: 64 partitions in a line tell a person nothing."""
    more = len(names) - _NAMED
    return by.join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


class ShardCondition(NamedTuple):
    """Whether a shard may act, and why not."""

    status: Status
    detail: str
