"""Injected faults: what a fake does wrong, and for how many requests.

The written form is `ON:KIND[=VALUE][,NAME=VALUE...]`:

    write:status=503            the next write is refused with that status
    write:commit-then-fail=503  it is made, and answered with that status
    write:drop                  it is made, and the connection is closed without an answer
    read:drop                   the connection is closed without an answer
    write:hang                  it is not made and never answered
    write:commit-then-hang      it is made and never answered
    read:delay=1.5              it is answered 1.5 s later
    write:delay=1.5             it is made 1.5 s later
    read:lie                    it is answered with the state before the last write
    write:lie                   it is not made, and answered as if it were

`times=N` applies the fault to N requests (1 by default, 0 for ever), `retry-after=S` adds that header to a status.
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
    """A fault of the next `times` requests of kind `on`, of all if that is 0. `seconds` is the length of a delay."""

    on: On
    kind: Kind
    status: int = 503
    seconds: float = 0.0
    retry_after: float | None = None
    times: int = 1


class FakeFaults:
    """The faults that have not happened yet, in the order in which they were added."""

    def __init__(self) -> None:
        self._waiting: deque[FakeFault] = deque()
        # A fake may serve requests in several threads.
        self._lock = threading.Lock()

    def add(self, fault: FakeFault | str) -> None:
        """Add a fault, as a struct or in its written form. Raises FlipbackError if the text is not valid."""
        made = parse(fault) if isinstance(fault, str) else fault
        with self._lock:
            self._waiting.append(made)

    def take(self, on: On) -> FakeFault | None:
        """Return the fault of a request, if any, and count it as used."""
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
    """Parse a fault's written form. Raises FlipbackError, which says what was expected."""
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
