"""One line of the output of `flipback doctor`."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. `what` names the thing checked, `detail` says what was found, and what to do if not ok.

    `took_ms` is how long a request took, None if there was none. A `local` finding is about this machine and its flag
    systems; the others are about the brokers, the running processes, and shadow mode.
    """

    what: str
    ok: bool
    detail: str
    took_ms: float | None = None
    local: bool = True
