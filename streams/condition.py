"""Whether a shard may act, and the reason if it may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Status = Literal["live", "catching_up", "unknown"]

_NAMED = 3


def shortened(names: Sequence[str], by: str = ", ") -> str:
    """The first three names and the number of the others, so that a message with 64 partitions stays readable."""
    more = len(names) - _NAMED
    return by.join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


class ShardCondition(NamedTuple):
    """Whether a shard may act, and the reason if it may not; `detail` is for people."""

    status: Status
    detail: str
