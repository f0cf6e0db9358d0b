"""The version of a flag that is judged: its generation, counted with each change that is seen, and its definition.

A backend's version alone may come back: a flag turned off and on again has its earlier definition. An incident of the
earlier time must not count for the later one, so a published version has a generation too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from agent.backends.contract import FlagRef, FlagState
from agent.commands.expiry import CLOCK_SKEW_S

FORGET_AFTER = 60.0
"""Seconds until an earlier generation replaces a later one that no executor repeats. Executors repeat every 30 s, and
count from 1 again if the flags topic was lost."""


class FlagStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A flag as it was last read. Times are Unix seconds.

    `version` is "g<generation>-<the backend's version>"; `variant` is the one that every subject gets, None if they
    differ; `safe` is whether that is the safe one. `at` is when the flag was read, `changed_at` when it was first seen
    in this version: None for the first version ever seen, whose beginning is unknown. `percent` (0 to 100) is the share
    of subjects that gets the first variant of the flag's rule, None if that is unknown.
    """

    flag: str
    environment: str
    version: Annotated[str, msgspec.Meta(pattern="^g[1-9][0-9]{0,14}-")]
    variant: str | None
    safe: bool
    at: float
    changed_at: float | None = None
    percent: float | None = None


def begun_by(status: FlagStatus, latest: float) -> FlagStatus:
    """Return the status with `changed_at` no later than `latest` (Unix seconds).

    A beginning in the future was recorded by a wrong clock. Evidence from before a version began does not count, so
    that time, if believed, would leave a bad flag on until it comes.
    """
    if status.changed_at is None or status.changed_at <= latest + CLOCK_SKEW_S:
        return status
    return msgspec.structs.replace(status, changed_at=latest)


def newest(known: FlagStatus | None, status: FlagStatus) -> FlagStatus:
    """Return the status that holds after `status` was published while `known` held.

    The first to publish a version decides when it began: two executors see a change at different moments of different
    clocks, and each new beginning would discard the evidence on the version. A status of an earlier generation was read
    before the change that made the later one: it is late.
    """
    if known is None:
        return status
    if known.version == status.version:
        return msgspec.structs.replace(status, changed_at=known.changed_at)
    late = generation(status.version) < generation(known.version) and status.at - known.at < FORGET_AFTER
    return known if late else status


class FlagWatch:
    """The generations of all flags. Every read of a flag is observed here first."""

    def __init__(self) -> None:
        self._known: dict[FlagRef, FlagStatus] = {}
        self._published: dict[FlagRef, str] = {}

    def prime(self, status: FlagStatus) -> None:
        """Continue from published statuses, in the order of the topic, unless a later generation is known.

        The first to publish a version decides when it began.
        """
        ref = FlagRef(status.flag, status.environment)
        known = self._known.get(ref)
        first = self._published.get(ref) != status.version
        if known is None or generation(known.version) < generation(status.version):
            self._known[ref] = status
        elif known.version == status.version and first:
            self._known[ref] = msgspec.structs.replace(known, changed_at=status.changed_at)
        elif known.version != status.version:
            return
        self._published[ref] = status.version

    def overtaken(self, ref: FlagRef, before: FlagStatus | None, state: FlagState) -> bool:
        """May a read that began when `before` was current be older than the current status?

        It may if another version became known meanwhile, for example by another executor's flip, and the read shows a
        third: the flag must be read again.
        """
        known = self._known.get(ref)
        if known is None or (before is not None and before.version == known.version):
            return False
        return known.version != f"g{generation(known.version)}-{state.version}"

    def observe(self, ref: FlagRef, state: FlagState, *, safe: str, at: float, changed: bool = False) -> FlagStatus:
        """Update the status with a fresh read; the generation rises by one if the backend's version differs.

        `changed`: the flag is known to have been written since it was last read, whatever its version is.
        """
        known = self._known.get(ref)
        if known is None:
            version, changed_at = f"g1-{state.version}", None
        elif not changed and known.version == f"g{generation(known.version)}-{state.version}":
            version, changed_at = known.version, known.changed_at
        else:
            version, changed_at = f"g{generation(known.version) + 1}-{state.version}", at
        status = FlagStatus(
            flag=ref.flag,
            environment=ref.environment,
            version=version,
            variant=state.variant,
            safe=state.variant == safe,
            at=at,
            changed_at=changed_at,
            percent=state.percent,
        )
        self._known[ref] = status
        return status

    def current(self, ref: FlagRef) -> FlagStatus | None:
        return self._known.get(ref)


def generation(version: str) -> int:
    """Return the generation in a version of a flag."""
    return int(version[1:].partition("-")[0])
