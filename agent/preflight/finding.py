"""One line of the output of `flipback doctor`."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `what` names it, `detail` says what was found, or what to do where it is no good.

    `took_ms` is how long the answer took, None where nothing was asked. `local` findings are of this machine and its
    flag systems, the others of the brokers, of the processes that run, and of the mode.
    """

    what: str
    ok: bool
    detail: str
    took_ms: float | None = None
    local: bool = True
