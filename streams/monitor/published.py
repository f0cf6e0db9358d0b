"""What the newest health record of a partition says: up to when it was judged, and what was announced."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streams.unreadable import UNREADABLE


class _Judged(msgspec.Struct, frozen=True):
    """The field that every version of a health record has."""

    time: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class _Trigger(msgspec.Struct, frozen=True):
    flag: str
    trigger: str
    scope: str
    unknown_since: int | None = None
    told: bool = False


class _Triggers(msgspec.Struct, frozen=True):
    triggers: list[_Trigger] = []


_triggers = msgspec.json.Decoder(_Triggers)
_decoder = msgspec.json.Decoder(_Judged)


def newest_judged(record: bytes | None, latest: float) -> tuple[int | None, str]:
    """The time of a health record (Unix seconds), or None and what is wrong with the record.

    None with "" says that there is no record, or none of a second that was judged. A time later than `latest` was
    written by a clock that was wrong, so it is not used.
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


def announced_before(record: bytes | None) -> dict[tuple[str, str, str], tuple[int, bool]]:
    """By flag, trigger and scope: since when the verdict is unknown, and whether that was announced.

    `record` is one that `newest_judged` can use. Older versions do not have these fields.
    """
    try:
        found = _triggers.decode(record) if record else _Triggers()
    except msgspec.MsgspecError:
        return {}
    return {
        (one.flag, one.trigger, one.scope): (one.unknown_since, one.told)
        for one in found.triggers
        if one.unknown_since is not None
    }
