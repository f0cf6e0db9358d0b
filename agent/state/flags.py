"""Which version of a flag is being judged: generations of a flag, counted as its changes are seen.

A backend's version alone may come back: a flag turned off and on again has the definition that it had before. An
incident of the earlier time must not stand for the later one, so a version that is published has a generation too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from agent.backends.contract import FlagRef, FlagState
from agent.state.allowlist import CLOCK_SKEW_S

FORGET_AFTER = 60.0
"""Seconds after which a later generation that nobody repeats gives way to an earlier one. Executors repeat every 30 s;
after the flags topic was lost they count anew."""


class FlagStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A flag as it was last seen. Times are Unix seconds.

    `version` is "g<generation>-<the backend's version>"; `variant` is the one that every subject gets, None where they
    differ; `safe` says whether that is the safe one. `at` is when the flag was read, `changed_at` when it was first
    seen in this version: None for the first version ever seen, which may have been there all along. `percent` (0 to
    100) is the share of subjects that gets the first variant of the flag's rule, None where that cannot be told.
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
    """The status of a version that had begun at `latest`, in Unix seconds, if not before.

    A beginning that is yet to come was noted by a clock that was wrong. All that a trigger gathers before it counts for
    nothing, so to believe it would leave a bad flag on until that time.
    """
    if status.changed_at is None or status.changed_at <= latest + CLOCK_SKEW_S:
        return status
    return msgspec.structs.replace(status, changed_at=latest)


def newest(known: FlagStatus | None, status: FlagStatus) -> FlagStatus:
    """What holds after `status` was published where `known` held before.

    A version begins when the first to publish it says so: two executors see a change at different moments of different
    clocks, and with each other beginning all evidence of the version would be gathered anew. A status of an earlier
    generation was read before the change that made the later one, and is late.
    """
    if known is None:
        return status
    if known.version == status.version:
        return msgspec.structs.replace(status, changed_at=known.changed_at)
    late = generation(status.version) < generation(known.version) and status.at - known.at < FORGET_AFTER
    return known if late else status


class FlagWatch:
    """The generations of all flags. Whatever reads a flag shows it here first."""

    def __init__(self) -> None:
        self._known: dict[FlagRef, FlagStatus] = {}
        self._published: dict[FlagRef, str] = {}

    def prime(self, status: FlagStatus) -> None:
        """Go on from a status that was published, in the order of the topic, unless a later generation is known.

        The first to publish a version says since when it is there.
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
        """May a read that began when `before` was current be older than what is known now?

        So it is where another version became known meanwhile, as by another executor's flip, and the read shows yet
        another: the flag is to be read again.
        """
        known = self._known.get(ref)
        if known is None or (before is not None and before.version == known.version):
            return False
        return known.version != f"g{generation(known.version)}-{state.version}"

    def observe(self, ref: FlagRef, state: FlagState, *, safe: str, at: float, changed: bool = False) -> FlagStatus:
        """Take in a fresh read; the generation rises by one where the backend's version is another than before.

        `changed`: it is known that the flag was written since it was last read, whatever its version is.
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
    """The generation in a version of a flag."""
    return int(version[1:].partition("-")[0])
