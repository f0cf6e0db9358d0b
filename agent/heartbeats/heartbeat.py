"""Heartbeats: what each process of a deployment publishes of itself every ten seconds, and who is alive by that.

They are not signed. No flip is caused or allowed by one, but who can write the topic can hide that a process is away.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import msgspec

from streams.unreadable import UNREADABLE

EVERY = 10.0
"""Seconds between two heartbeats of a process whose state does not change; a change is published within a second."""

QUIET_AFTER = EVERY + 3.0
"""Seconds without a heartbeat after which a person is shown its age: one that is due is looked for once a second
(agent.heartbeats.sender), and brokers that are well take it within one.
"""

AWAY_AFTER = 25.0
"""Seconds without a heartbeat after which a process counts as away: two are missing, with 5 s for a slow machine.

A write that the brokers did not take is given up after `EVERY` and tried again within a second: one that fails is made
up for at 21 s. Where two fail, no command has come to an executor for 20 s either. Less would announce a process that
was held up for once, more would show ARMED for longer with nobody there; a missing process is to be announced in 30 s.
"""

MAX_AHEAD = 5.0
"""Seconds that a heartbeat may come from the future. A clock further ahead would keep a dead process alive as long."""

MEASURED = 3
"""Heartbeats by which a clock is measured."""

MAX_TEXT = 500
MAX_OBSTACLES = 20
MAX_FLAGS_TEXT = 64 * 1024
"""Characters of the names of all managed flags: 1,500 flags with names of 40."""

MAX_BYTES = 256 * 1024

Role = Literal["ingest", "monitor", "executor"]
Part = Literal["active", "standby", "starting"]

Name = Annotated[str, msgspec.Meta(max_length=512)]


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps a flip from happening: `what` it concerns, `why`, and what a person is to `do`.

    `what` is a stable word or name, such as `executor`, `keys`, or a flag. `waits` says that the
    configuration asks for it, or that it is gone when an update is through: the process that sees it is ready all the
    same.
    """

    what: str
    why: str
    do: str = ""
    waits: bool = False

    def bounded(self) -> Obstacle:
        """The same with no text longer than `MAX_TEXT` characters."""
        return Obstacle(what=_cut(self.what), why=_cut(self.why), do=_cut(self.do), waits=self.waits)

    def __str__(self) -> str:
        said = self.why if self.why.startswith(self.what) else f"{self.what}: {self.why}"
        return f"{said}; {self.do}" if self.do else said


class TelemetryCount(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a topic in the last minute: those that came, those that were rejected, why the newest was, and its
    beginning; and requests that do not say how they ended.
    """

    topic: Name
    received: Annotated[int, msgspec.Meta(ge=0)]
    rejected: Annotated[int, msgspec.Meta(ge=0)]
    reason: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = ""
    example: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = ""
    no_outcome: Annotated[int, msgspec.Meta(ge=0)] = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is and does; its record's key is `id`. Times are Unix seconds of its own clock.

    `roles` has the part that it plays in each of its roles, `reads` the partitions it has of each topic. `rules` and
    `managed` are hashes of the triggers and of the managed flags (agent.config.load). `signs` is the id of the key with
    which its monitor signs, `accepts` are those that its executor obeys. `flags` are the managed flags, each
    "environment/flag", or none where they are too many to tell. `ledger` is the id of its executor's ledger, and
    `halted` is why its executor turns back nothing by itself, if so.
    """

    id: Name
    host: Name
    pid: int
    started_at: float
    at: float
    version: Name
    roles: dict[Role, Part]
    rules: Name
    managed: Name
    mode: Literal["active", "shadow"] = "active"
    signs: Name | None = None
    accepts: Annotated[list[Name], msgspec.Meta(max_length=100)] = []
    flags: list[Name] = []
    reads: dict[str, list[int]] = {}
    ledger: Name | None = None
    halted: str | None = None
    obstacles: Annotated[list[Obstacle], msgspec.Meta(max_length=MAX_OBSTACLES)] = []
    telemetry: Annotated[list[TelemetryCount], msgspec.Meta(max_length=1000)] = []

    @property
    def name(self) -> str:
        """The process for a person."""
        return f"{self.host} (pid {self.pid})"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Heartbeat)


def encode(beat: Heartbeat) -> bytes:
    """The record's value, whatever the lengths of what it tells."""
    shown = [obstacle.bounded() for obstacle in beat.obstacles[:MAX_OBSTACLES]]
    halted = None if beat.halted is None else _cut(beat.halted)
    flags = beat.flags if sum(map(len, beat.flags)) <= MAX_FLAGS_TEXT else []
    return _encoder.encode(msgspec.structs.replace(beat, obstacles=shown, halted=halted, flags=flags))


def decode(value: bytes) -> Heartbeat | None:
    """The heartbeat in a record, None where it is none."""
    if len(value) > MAX_BYTES:
        return None
    try:
        return _decoder.decode(value)
    except UNREADABLE:
        return None


@dataclass(frozen=True, slots=True)
class Member:
    """A process by its last heartbeat, and how many seconds ago that was; `ahead` is what its clock is in advance.

    `clock` is the difference of its clock from the reader's monotonic one, None before that was measured: between two
    processes it tells how far their clocks are apart.
    """

    beat: Heartbeat
    age: float
    ahead: float = 0.0
    clock: float | None = None

    @property
    def alive(self) -> bool:
        return self.age <= AWAY_AFTER and self.ahead <= MAX_AHEAD

    @property
    def quiet(self) -> bool:
        """Is it alive by rule alone, its next heartbeat overdue?"""
        return self.alive and self.age > QUIET_AFTER


class HeartbeatRecord(Protocol):
    """A record of the topic."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Members:
    """The processes that have not taken their leave. What cannot be read is counted.

    Ages of what is read at the beginning are by the wall clock, of all later heartbeats by `monotonic`: then no clock
    of another machine makes a dead process look alive.
    """

    def __init__(
        self, *, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._monotonic = monotonic
        self._beats: dict[str, Heartbeat] = {}
        self._seen: dict[str, float] = {}
        self._ahead: dict[str, float] = {}
        self._clocks: dict[str, deque[float]] = {}
        self._heard: dict[Role, float] = {}
        self._begun = monotonic()
        self.caught_up = False
        """Has all been read that was there at the beginning?"""
        self.unreadable = 0

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record of the topic; one without a value is the leave of a process."""
        if value is None:
            self._forget((key or b"").decode(errors="replace"))
            return
        beat = decode(value)
        if beat is None:
            self.unreadable += 1
            return
        age = 0.0 if self.caught_up else self._now() - beat.at
        self._beats[beat.id] = beat
        self._seen[beat.id] = self._monotonic() - max(0.0, age)
        self._ahead[beat.id] = max(0.0, -age)
        if self.caught_up:
            self._clocks.setdefault(beat.id, deque(maxlen=MEASURED)).append(beat.at - self._monotonic())
        for role in beat.roles:
            self._heard[role] = max(self._heard.get(role, -math.inf), self._seen[beat.id])

    def all(self) -> list[Member]:
        """Every process, those that are away too, by id."""
        now = self._monotonic()
        return [
            Member(self._beats[name], now - self._seen[name], self._ahead[name], self._clock(name))
            for name in sorted(self._beats)
        ]

    def _clock(self, name: str) -> float | None:
        # A heartbeat that was long on its way makes a clock look behind, never ahead.
        measured = self._clocks.get(name, ())
        return max(measured) if len(measured) == MEASURED else None

    def unheard(self, role: Role) -> float:
        """For how many seconds nobody with a role has been heard of, those that took their leave too; since the
        beginning where nobody ever was.
        """
        return self._monotonic() - max(self._heard.get(role, -math.inf), self._begun)

    def _forget(self, name: str) -> None:
        for table in (self._beats, self._seen, self._ahead, self._clocks):
            table.pop(name, None)


def members_of(records: Iterable[HeartbeatRecord]) -> list[Member]:
    """The processes by all records of the topic."""
    members = Members()
    for record in records:
        members.take(record.key, record.value)
    return members.all()


def alive(members: Iterable[Member], role: Role | None = None) -> list[Member]:
    """Those that are alive, and have the role where one is named."""
    return [member for member in members if member.alive and (role is None or role in member.beat.roles)]


def reads_of(assigned: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Partitions by topic."""
    found: dict[str, list[int]] = {}
    for topic, partition in sorted(assigned):
        found.setdefault(topic, []).append(partition)
    return found


def changed(before: Heartbeat | None, now: Heartbeat) -> bool:
    """Is there news that cannot wait for the next heartbeat? Times and counts can."""
    if before is None:
        return True
    return msgspec.structs.replace(before, at=now.at, telemetry=now.telemetry) != now


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
