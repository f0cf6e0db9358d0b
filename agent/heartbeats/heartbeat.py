"""Heartbeats: what each process publishes about itself every ten seconds, and which processes are alive.

Heartbeats are not signed. None causes or allows a flip, but a writer of the topic can hide that a process is away.
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
"""Seconds without a heartbeat after which a person is shown its age.

A process checks once a second whether its heartbeat is due (agent.heartbeats.sender), and healthy brokers take it
within a second.
"""

AWAY_AFTER = 25.0
"""Seconds without a heartbeat after which a process counts as away: two are missing, with 5 s for a slow machine.

A write that the brokers do not take is given up after `EVERY` and tried again within a second, so one failed write is
made up for at 21 s. If two fail, no command has reached an executor for 20 s either. A shorter time would announce a
process that was held up once; a longer one would show ARMED for longer without a process. A missing process must be
announced within 30 s (docs/promises.md#p3-an-inability-is-announced).
"""

MAX_AHEAD = 5.0
"""Seconds that a heartbeat may lie in the future: a clock so far ahead makes a dead process look alive as long."""

MEASURED = 3
"""Heartbeats needed to measure a clock."""

MAX_TEXT = 500
MAX_OBSTACLES = 20
MAX_FLAGS_TEXT = 64 * 1024
"""Characters of the names of all managed flags: enough for 1,500 flags with names of 40."""

MAX_BYTES = 256 * 1024

Role = Literal["ingest", "monitor", "executor"]
Part = Literal["active", "standby", "starting"]

Name = Annotated[str, msgspec.Meta(max_length=512)]


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps a flip from happening: `what` it concerns, `why`, and what a person should `do`.

    `what` is a stable word or name, such as `executor`, `keys`, or a flag. `waits`: the obstacle is configured, or is
    gone once an update is through; the process that sees it is ready all the same.
    """

    what: str
    why: str
    do: str = ""
    waits: bool = False

    def bounded(self) -> Obstacle:
        """A copy with each text cut to `MAX_TEXT` characters."""
        return Obstacle(what=_cut(self.what), why=_cut(self.why), do=_cut(self.do), waits=self.waits)

    def __str__(self) -> str:
        text = self.why if self.why.startswith(self.what) else f"{self.what}: {self.why}"
        return f"{text}; {self.do}" if self.do else text


class TelemetryCount(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a topic in the last minute: `received` and `rejected`, the `reason` and the beginning (`example`) of
    the newest rejected one, and requests with `no_outcome`.
    """

    topic: Name
    received: Annotated[int, msgspec.Meta(ge=0)]
    rejected: Annotated[int, msgspec.Meta(ge=0)]
    reason: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = ""
    example: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = ""
    no_outcome: Annotated[int, msgspec.Meta(ge=0)] = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is and does; its record's key is `id`. Times are Unix seconds of its own clock.

    `roles` maps each role to its part, `reads` each topic to the partitions that this process has. `rules` and
    `managed` are hashes of the triggers and of the managed flags (agent.config.load). `signs` is the id of the key with
    which the monitor signs, `accepts` the ids that the executor accepts. `flags` are the managed flags, each
    "environment/flag"; the list is empty if it would be too long. `ledger` is the id of the executor's ledger. `halted`
    is why the executor makes no automatic flip, if so.
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
        """The name of the process for a person."""
        return f"{self.host} (pid {self.pid})"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Heartbeat)


def encode(beat: Heartbeat) -> bytes:
    """The record's value. Texts that are too long are cut, and too many flags are left out."""
    shown = [obstacle.bounded() for obstacle in beat.obstacles[:MAX_OBSTACLES]]
    halted = None if beat.halted is None else _cut(beat.halted)
    flags = beat.flags if sum(map(len, beat.flags)) <= MAX_FLAGS_TEXT else []
    return _encoder.encode(msgspec.structs.replace(beat, obstacles=shown, halted=halted, flags=flags))


def decode(value: bytes) -> Heartbeat | None:
    """The heartbeat in a record's value, None if it cannot be read."""
    if len(value) > MAX_BYTES:
        return None
    try:
        return _decoder.decode(value)
    except UNREADABLE:
        return None


@dataclass(frozen=True, slots=True)
class Member:
    """A process by its last heartbeat, which is `age` seconds old; its clock is `ahead` by so many seconds.

    `clock` is the difference of its clock from the reader's monotonic one, None until measured. The difference between
    the values of two processes is how far their clocks are apart.
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
        """Is the next heartbeat overdue, although the process still counts as alive?"""
        return self.alive and self.age > QUIET_AFTER


class HeartbeatRecord(Protocol):
    """A record of the topic."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Members:
    """The processes that have not left. Records that cannot be read are counted.

    The age of a heartbeat that is read at the start follows from the wall clocks, of later ones from `monotonic`: then
    no clock of another machine makes a dead process look alive.
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
        """Have all records been read that the topic held at the start?"""
        self.unreadable = 0

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record of the topic; a record without a value says that a process has left."""
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
        """Every process in the order of ids, including those that are away."""
        now = self._monotonic()
        return [
            Member(self._beats[name], now - self._seen[name], self._ahead[name], self._clock(name))
            for name in sorted(self._beats)
        ]

    def _clock(self, name: str) -> float | None:
        # A delayed heartbeat makes a clock look behind, never ahead: the maximum is the best estimate.
        measured = self._clocks.get(name, ())
        return max(measured) if len(measured) == MEASURED else None

    def unheard(self, role: Role) -> float:
        """Seconds since the last heartbeat of any process with the role, including processes that have left.

        If there never was one, seconds since this table began.
        """
        return self._monotonic() - max(self._heard.get(role, -math.inf), self._begun)

    def _forget(self, name: str) -> None:
        for table in (self._beats, self._seen, self._ahead, self._clocks):
            table.pop(name, None)


def members_of(records: Iterable[HeartbeatRecord]) -> list[Member]:
    """The processes that all records of the topic describe."""
    members = Members()
    for record in records:
        members.take(record.key, record.value)
    return members.all()


def alive(members: Iterable[Member], role: Role | None = None) -> list[Member]:
    """The members that are alive, and have `role` if one is given."""
    return [member for member in members if member.alive and (role is None or role in member.beat.roles)]


def reads_of(assigned: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Partitions by topic."""
    found: dict[str, list[int]] = {}
    for topic, partition in sorted(assigned):
        found.setdefault(topic, []).append(partition)
    return found


def changed(before: Heartbeat | None, now: Heartbeat) -> bool:
    """Did anything change that must be published at once? The time and the counts of telemetry can wait."""
    if before is None:
        return True
    return msgspec.structs.replace(before, at=now.at, telemetry=now.telemetry) != now


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
