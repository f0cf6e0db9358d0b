"""One line of the output of `flipback doctor`, and its last line."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streams.condition import shortened


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


def finding_line(finding: Finding) -> str:
    """Return the finding as a line for a person."""
    took = "" if finding.took_ms is None else f"  ({finding.took_ms:.0f} ms)"
    return f"{'ok  ' if finding.ok else 'BAD '} {finding.what}: {finding.detail}{took}"


def verdict_line(findings: Sequence[Finding], *, kafka: bool) -> str:
    """Return the last line: ARMED, or NOT ARMED with the names of what is wrong. `kafka`: the brokers were asked.

    The details of what is wrong are in the lines above, and are not repeated.
    """
    bad = [finding for finding in findings if not finding.ok]
    if bad:
        names = shortened(list(dict.fromkeys(finding.what for finding in bad)))
        return f"NOT ARMED: {names}: see BAD above, {len(bad)} of {len(findings)}"
    return "ARMED" if kafka else "a flip would work from here; whether it is ARMED only the brokers can tell"
