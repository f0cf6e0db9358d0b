"""Lenient reading: JSON that is not strict, and checks of names and of variants of flags."""

from __future__ import annotations

import json
from typing import Final, cast

import msgspec
from msgspec import Raw

from streams.telemetry.sample import MAX_NAME

VARIANT: Final = 'must be the name of the variant, such as "on", not its value'
_PRINTS: Final = f"must have 1 to {MAX_NAME} characters that print"


def loose(value: bytes | Raw) -> object:
    """Decode JSON, also with NaN, infinities, and texts that are not valid UTF-8, which a strict decoder refuses.

    Raises ValueError or RecursionError for anything else.
    """
    try:
        return msgspec.json.decode(value)
    except ValueError:
        # Invalid bytes become characters that do not print, which no name may have.
        return cast("object", json.loads(bytes(value).decode("utf-8", "surrogateescape")))


def check_name(what: str, name: str) -> None:
    """Raise ValueError unless the name is 1 to MAX_NAME printable characters: names end up on terminals and in logs."""
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"{what} must have 1 to {MAX_NAME} characters, not {len(name)}")
    if not name.isprintable():
        raise ValueError(f"{what} {name!r} has characters that do not print")


def name_fault(name: object) -> str | None:
    """What is wrong with a name; None for a good one."""
    if not isinstance(name, str):
        return "must be a text"
    return None if 1 <= len(name) <= MAX_NAME and name.isprintable() else _PRINTS


def variant_fault(value: object) -> str | None:
    """What is wrong with the variant of a flag. None and "" mean no variant and are not wrong."""
    if value is None or value == "":
        return None
    return name_fault(value) if isinstance(value, str) else VARIANT
