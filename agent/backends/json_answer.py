"""The JSON in an answer, which may be anything: decoded, or Invalid with a short reason."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from agent.backends.json_text import too_deep
from agent.errors import Invalid

T = TypeVar("T")

_MOST_SHOWN = 200


def decoded(body: bytes, kind: type[T] | Any, what: str) -> T:
    """The value of a body. Raises Invalid, which begins with `what`, where it is none, or nested too deeply to handle.

    No value is quoted: an answer may hold a secret.
    """
    try:
        found: T = msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError:
        raise Invalid(f"{what}: it is no UTF-8") from None
    except RecursionError:
        raise Invalid(f"{what}: JSON nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"{what}: {str(error)[:_MOST_SHOWN]}") from None
    # Few brackets cannot be deep, and counting them costs nothing.
    if body.count(b"[") + body.count(b"{") > 64 and too_deep(msgspec.to_builtins(found)):
        raise Invalid(f"{what}: JSON nested too deeply")
    return found
