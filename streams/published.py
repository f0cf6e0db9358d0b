"""Up to when a partition was judged by whoever had it before, as its newest health record says."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streams.errors import UNREADABLE


class _Judged(msgspec.Struct, frozen=True):
    """What every version of a health record has."""

    time: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


_decoder = msgspec.json.Decoder(_Judged)


def newest_judged(record: bytes | None, latest: float) -> tuple[int | None, str]:
    """The time of a health record (Unix seconds), and what is wrong with it where it is of no use.

    None with "" says that there is no record, or none of a second that was judged. A time later than `latest` was
    written by a clock that was wrong.
    """
    if not record:
        return None, ""
    try:
        time = _decoder.decode(record).time
    except UNREADABLE as error:
        return None, f"it cannot be read: {error}"
    if time > latest:
        return None, f"its time is {time - latest:.0f} s ahead of this machine's clock"
    return time or None, ""
