"""What every flag backend promises: read, snapshot, conditional write, read-back, restore.

A write names the version that it expects and an operation id, and succeeds only if the flag still has that version.
Only `verify` decides whether a write landed: the answer to the write may be lost, late or wrong. Deadlines are
absolute, in seconds of `time.monotonic()`. An operation ends by its deadline, if need be with Timeout, or with Unsent
if a write was stopped before anything was written. Backends do not retry.

Errors are those under BackendError. Auth, Permission, NotFound, Invalid, Unsupported, Throttled, Conflict and Unsent
mean that nothing was written. After Failed the write may have landed; after Timeout and other Transients it may have
landed, or may still land later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec


class Cas(StrEnum):
    """Who compares the version in a write: the flag system, this machine (if writers take its lock), or nobody."""

    NATIVE = "native"
    LOCAL = "local"
    NONE = "none"


class Granularity(StrEnum):
    """What the version covers: one flag, or a template of many flags, so that edits to other flags conflict too."""

    FLAG = "flag"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do.

    `percent`: `set_percent` is supported. `atomic_ledger`: a write also stores its operation id, in one step. `push`:
    the backend reports changes, see `Follows`. `read_every` is the interval, in seconds, at which each flag is read to
    see whether somebody changed it; `reads_at_once` is how many flags are read at a time.
    """

    cas: Cas
    percent: bool
    atomic_ledger: bool
    push: bool
    granularity: Granularity
    read_every: float = 1.0
    reads_at_once: int = 16


class FlagRef(NamedTuple):
    """A flag as its backend identifies it."""

    flag: str
    environment: str


class FlagState(msgspec.Struct, frozen=True, kw_only=True):
    """A flag as it was read.

    `variant` is the one that every subject gets, None if subjects differ or it is unknown. `percent` (0 to 100) is the
    share that gets the first variant of a rule as `set_percent` writes it, None without such a rule. `version` is
    opaque and differs if the definition does; `raw` is the definition in the backend's own format.
    """

    variant: str | None
    percent: float | None
    version: str
    raw: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A flag's state before a flip: enough to restore it, and to detect whether it was written since.

    `identity` identifies the stored copy, not its content (an inode and its time, an update time): a flag that was
    changed and changed back has the version of the snapshot, but another identity.
    """

    flag: str
    environment: str
    state: FlagState
    identity: str

    @property
    def ref(self) -> FlagRef:
        return FlagRef(self.flag, self.environment)


class Outcome(StrEnum):
    """The outcome of a write or of a command.

    applied: written by this operation. already: nothing to do. duplicate: this operation was done before. conflict: the
    flag has another version than expected, and was not written. ambiguous: it may have been written. rejected: refused.
    """

    APPLIED = "applied"
    ALREADY = "already"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    AMBIGUOUS = "ambiguous"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """`state` is the flag after the write, or as it was found; None if that is unknown. `detail` is for people."""

    outcome: Outcome
    state: FlagState | None
    detail: str = ""


class Verdict(StrEnum):
    """Whether an operation changed the flag of a snapshot, by a read-back.

    landed: the flag is as the operation leaves it. untouched: it is still the copy of the snapshot, so nothing was
    written. as_before: it has the definition of the snapshot and this process did not write it, but it may have been
    changed and changed back. other: somebody else wrote it. unknown: the backend cannot be read.
    """

    LANDED = "landed"
    UNTOUCHED = "untouched"
    AS_BEFORE = "as_before"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ReadBack:
    verdict: Verdict
    state: FlagState | None


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """Whether flips would succeed.

    Each of `problems` is a sentence that says what would stop a flip, or keep applications from seeing it, and what to
    do; without problems the backend is ready. Each of `doubts` says what a person should check, although a flip would
    succeed.
    """

    problems: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


class FlagBackend(Protocol):
    """A flag system. Every operation raises BackendError and ends by `deadline`."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        """Read the flag as it is now, never from a cache."""
        ...

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        """Read the flag as it is now, to restore it later; the caller makes the snapshot durable before a write."""
        ...

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        """Give `target` to every subject, if the flag's version is `expect`."""
        ...

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        """Read the flag as it is now: did `apply` of `target` with `op_id` change the flag of the snapshot?"""
        ...

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        """Write the snapshot's definition, if the flag's version is `expect`: the version after the flip."""
        ...

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        """Give `variant` to `percent` (0 to 100) of the subjects and `rest` to the others, if the version is `expect`.

        A subject that has `variant` keeps it when the percentage rises.
        """
        ...

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        """Check whether `apply` would give these flags these targets. Makes reads and dry runs, never a write."""
        ...

    async def close(self) -> None:
        """Release threads and connections."""
        ...


@runtime_checkable
class Follows(Protocol):
    """A backend that reports changes of flags: every backend with `capabilities.push`."""

    async def follow(self, refs: Sequence[FlagRef], changed: Callable[[FlagRef], None]) -> None:
        """Call `changed`, in the event loop, when one of the flags may have been changed; until cancelled.

        A connection that is lost or silent is opened again, and changes in between are reported then.
        """
        ...
