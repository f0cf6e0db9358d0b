"""Decodes the JSON of an untrusted answer, or raises Invalid with a short reason."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from agent.backends.json_text import too_deep
from agent.errors import Invalid

T = TypeVar("T")

_MOST_SHOWN = 200


def decoded(body: bytes, kind: type[T] | Any, what: str) -> T:
    """Decode a body. Raises Invalid, whose message begins with `what`, if it is no such JSON or is nested too deeply.

    The message quotes no value: an answer may hold a secret.
    """
    try:
        found: T = msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError:
        raise Invalid(f"{what}: it is no UTF-8") from None
    except RecursionError:
        raise Invalid(f"{what}: JSON nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"{what}: {str(error)[:_MOST_SHOWN]}") from None
    # A few brackets cannot nest deeply, and counting them is cheap.
    if body.count(b"[") + body.count(b"{") > 64 and too_deep(msgspec.to_builtins(found)):
        raise Invalid(f"{what}: JSON nested too deeply")
    return found
