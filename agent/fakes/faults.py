"""Faults on order: what a fake does wrong, for how many requests.

Written `ON:KIND[=VALUE][,NAME=VALUE...]`:

    write:status=503            the next write is refused with that status
    write:commit-then-fail=503  it is carried out, and answered with that status
    write:drop                  it is carried out, and the connection closed without an answer
    read:drop                   the connection is closed without an answer
    write:hang                  it is not carried out and never answered
    write:commit-then-hang      it is carried out and never answered
    read:delay=1.5              it is answered 1.5 s later
    write:delay=1.5             it is carried out 1.5 s later
    read:lie                    it is answered with what was there before the last write
    write:lie                   it is answered as if it had been carried out

`times=N` is for N requests (1 by default, 0 for ever), `retry-after=S` adds that header to a status.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal, get_args

import msgspec

from agent.errors import FlipbackError

On = Literal["read", "write"]
Kind = Literal["status", "commit-then-fail", "drop", "hang", "commit-then-hang", "delay", "lie"]

_FORMS = "the form is ON:KIND[=VALUE][,times=N][,retry-after=S], such as write:status=503,times=2"


class FakeFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault of the next `times` requests of kind `on`, for ever where that is 0. `seconds` is how long a delay is."""

    on: On
    kind: Kind
    status: int = 503
    seconds: float = 0.0
    retry_after: float | None = None
    times: int = 1


class FakeFaults:
    """The faults that are still to come, in the order in which they were ordered."""

    def __init__(self) -> None:
        self._waiting: deque[FakeFault] = deque()
        # A fake may serve in threads.
        self._lock = threading.Lock()

    def add(self, fault: FakeFault | str) -> None:
        """Order a fault, as a struct or in its written form. Raises FlipbackError where the text is none."""
        made = parse(fault) if isinstance(fault, str) else fault
        with self._lock:
            self._waiting.append(made)

    def take(self, on: On) -> FakeFault | None:
        """The fault of a request that has come, used up by it."""
        with self._lock:
            for place, fault in enumerate(self._waiting):
                if fault.on == on:
                    if fault.times == 1:
                        del self._waiting[place]
                    elif fault.times:
                        self._waiting[place] = msgspec.structs.replace(fault, times=fault.times - 1)
                    return fault
        return None

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> list[FakeFault]:
        with self._lock:
            return list(self._waiting)


def parse(text: str) -> FakeFault:
    """Read a fault's written form. Raises FlipbackError that says what was expected."""
    head, *options = text.strip().split(",")
    on, colon, what = head.partition(":")
    kind, _, value = what.partition("=")
    if not colon or on not in get_args(On) or kind not in get_args(Kind):
        raise FlipbackError(f"fault {text!r}: expected read or write, and one of {', '.join(get_args(Kind))}; {_FORMS}")
    fields: dict[str, object] = {"on": on, "kind": kind}
    if value:
        fields["seconds" if kind == "delay" else "status"] = value
    for option in options:
        name, _, value = option.partition("=")
        fields[name.strip().replace("-", "_")] = value
    try:
        return msgspec.convert(fields, FakeFault, strict=False)
    except msgspec.ValidationError as error:
        raise FlipbackError(f"fault {text!r}: {error}; {_FORMS}") from None
