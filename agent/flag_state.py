"""Which version of a flag is being judged: generations of a flag, counted as its changes are seen.

A backend's version alone may come back: a flag turned off and on again has the definition that it had before. An
incident of the earlier time must not stand for the later one, so a version that is published has a generation too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from agent.backends.contract import FlagRef, FlagState


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


class FlagWatch:
    """The generations of all flags. Whatever reads a flag shows it here first."""

    def __init__(self) -> None:
        self._known: dict[FlagRef, FlagStatus] = {}

    def prime(self, status: FlagStatus) -> None:
        """Go on from a status that was published before, unless a later generation is known already."""
        ref = FlagRef(status.flag, status.environment)
        known = self._known.get(ref)
        if known is None or generation(known.version) < generation(status.version):
            self._known[ref] = status

    def observe(self, ref: FlagRef, state: FlagState, *, safe: str, at: float) -> FlagStatus:
        """Take in a fresh read; the generation rises by one where the backend's version is another than before."""
        known = self._known.get(ref)
        if known is None:
            version, changed_at = f"g1-{state.version}", None
        elif known.version == f"g{generation(known.version)}-{state.version}":
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
