"""What every flag backend promises: read, snapshot, conditional write, read-back, restore.

A write names the version that it expects and an operation id, and goes through only if the flag is still that one.
Whether a write landed is asked by `verify`, never guessed: an answer may be lost, late or wrong. Deadlines are
absolute, in seconds of `time.monotonic()`; an operation ends by its deadline, with Timeout if need be, or Unsent where
a write came to nothing. Nothing retries.

Errors are those under BackendError. Auth, Permission, NotFound, Invalid, Unsupported, Throttled, Conflict and Unsent
say that nothing was written. After Failed a write may have landed, after Timeout and other Transients it may land yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec


class Cas(StrEnum):
    """Who compares and sets: the flag system itself, this machine (only writers that share its lock), or nobody."""

    NATIVE = "native"
    LOCAL = "local"
    NONE = "none"


class Granularity(StrEnum):
    """What the version covers: one flag, or a template of many, where edits to other flags conflict as well."""

    FLAG = "flag"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`atomic_ledger`: the operation id is stored in the same write; `push`: changes are told, see `Follows`.

    `look_every` is how often a flag is read to see whether somebody changed it, in seconds; `looks_at_once` is how many
    are read at a time.
    """

    cas: Cas
    percent: bool
    atomic_ledger: bool
    push: bool
    granularity: Granularity
    look_every: float = 1.0
    looks_at_once: int = 16


class FlagRef(NamedTuple):
    """A flag as its backend knows it."""

    flag: str
    environment: str


class FlagState(msgspec.Struct, frozen=True, kw_only=True):
    """A flag as it was read.

    `variant` is the one that every subject gets, None where subjects differ or it cannot be told. `percent` (0 to 100)
    is the share that gets the first variant of a rule as `set_percent` writes it, None without such a rule. `version`
    is opaque and differs when the definition does; `raw` is the definition in the backend's own words.
    """

    variant: str | None
    percent: float | None
    version: str
    raw: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to put a flag back, or to tell whether it was touched since.

    `identity` names the stored copy rather than its content (an inode and its time, an update time): a flag that was
    changed and changed back has the version of the snapshot, but not its identity.
    """

    flag: str
    environment: str
    state: FlagState
    identity: str

    @property
    def ref(self) -> FlagRef:
        return FlagRef(self.flag, self.environment)


class Outcome(StrEnum):
    """What became of a write or of a command.

    applied: written by this operation. already: nothing to do. duplicate: this operation was done before. conflict: the
    flag is not the one that was expected, and was left alone. ambiguous: it may have been written. rejected: refused.
    """

    APPLIED = "applied"
    ALREADY = "already"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    AMBIGUOUS = "ambiguous"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """`state` is the flag after the write, or as it was found; None where that is not known. `detail` is for people."""

    outcome: Outcome
    state: FlagState | None
    detail: str = ""


class Verdict(StrEnum):
    """What a read-back shows of one operation on a snapshot.

    landed: the flag is as the operation leaves it. untouched: it is still the copy of the snapshot, so nothing was
    written. as_before: the definition is the snapshot's, and what is stored cannot tell whether it was changed and
    changed back; this process did not write it. other: somebody else wrote. unknown: the backend cannot be read.
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
    """`problems` say what would stop a flip, or keep applications from seeing it, one sentence each, with what to do;
    none means ready. `doubts` say what a person should look at, although a flip would go through.
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
        """The flag as it is now, never from a cache."""
        ...

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        """A fresh read that can be restored; the caller makes it durable before it writes."""
        ...

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        """Give `target` to every subject, if the flag's version is `expect`."""
        ...

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        """By a fresh read: did `apply` of `target` with `op_id` change the flag that the snapshot shows?"""
        ...

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        """Put the snapshot's definition back, if the flag's version is `expect`: the one that the flip left."""
        ...

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        """Give `variant` to `percent` (0 to 100) of the subjects and `rest` to the others, if the version is `expect`.

        A subject that has `variant` keeps it when the percentage rises.
        """
        ...

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        """Would these flags go to these targets? Reads and dry runs only, never a write."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...


@runtime_checkable
class Follows(Protocol):
    """A backend that tells of changes: every one with `capabilities.push`."""

    async def follow(self, refs: Sequence[FlagRef], changed: Callable[[FlagRef], None]) -> None:
        """Call `changed`, in the event loop, when one of the flags may have been changed; until cancelled.

        It mends itself: a connection that is lost or silent is made anew, and what was missed is told then.
        """
        ...
