"""Would a flip happen now? Decides ARMED or NOT ARMED, for `status`, `doctor` and `/readyz` alike.

A pure function of the configuration and a view of the deployment. Whatever is unknown is an obstacle
(docs/promises.md#p8-unknown-is-never-healthy).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.armed.group import CLOCKS, last_heard, of_clocks, of_configurations, of_keys, of_partitions, of_roles
from agent.armed.view import FlagKey, View, Wanted
from agent.heartbeats.heartbeat import Member, Obstacle, alive
from streams.condition import shortened

UNREAD_AFTER = 90.0
"""Seconds after which the state of a flag is too old: an executor publishes each state every 30 s."""

REJECTED_MOST = 0.01
"""The share of rejected samples above which verdicts are unknown."""

SHOWN = 20
"""Lines that a person is shown at most."""


@dataclass(frozen=True, slots=True)
class Arming:
    """The obstacles, gravest first; armed if there are none."""

    obstacles: tuple[Obstacle, ...]

    @property
    def armed(self) -> bool:
        return not self.obstacles

    @property
    def ready(self) -> bool:
        """Is every obstacle either configured or gone once an update is through (`Obstacle.waits`)?"""
        return all(obstacle.waits for obstacle in self.obstacles)

    def lines(self) -> Iterator[str]:
        """Lines for a person: the verdict with the gravest reason, then the other reasons."""
        if self.armed:
            yield "ARMED"
            return
        first, *others = self.obstacles
        yield f"NOT ARMED: {first}"
        for obstacle in others[: SHOWN - 1]:
            yield f"  ! {obstacle}"
        if len(others) >= SHOWN:
            yield f"  ! and {len(others) - SHOWN + 1} more"


VERDICTS = "verdicts"


def arming(wanted: Wanted, view: View) -> Arming:
    """Everything that keeps a flip from happening."""
    shadow = shadow_obstacle(wanted)
    found: list[Obstacle] = [] if shadow is None else [shadow]
    if view.members is None:
        unread = "the heartbeats of the processes have not been read"
        found.append(Obstacle(what="heartbeats", why=unread, do="is a broker up, and may they be read?"))
    else:
        found += _of_members(wanted, view, view.members)
    found += view.local
    updating = any(one.what == "configuration" and one.waits for one in found)
    if view.members is None or alive(view.members, "executor"):
        found += _of_flags(wanted, view.ages, updating=updating)
    return Arming(tuple(obstacle.bounded() for obstacle in found))


def shadow_obstacle(wanted: Wanted) -> Obstacle | None:
    """The obstacle if the configuration makes no command, such as in shadow mode."""
    if wanted.shadow is None:
        return None
    return Obstacle(
        what="shadow",
        why=f"{wanted.shadow}: all is judged and nothing is commanded",
        do="set `mode: active` when it is to act",
        waits=True,
    )


def _of_members(wanted: Wanted, view: View, members: Sequence[Member]) -> Iterator[Obstacle]:
    living = alive(members)
    if not living:
        yield Obstacle(
            what="process", why=f"no process is alive{last_heard(members)}", do="start it: flipback run -c FILE"
        )
        return
    if view.own is not None and all(member.beat.id != view.own for member in living):
        yield Obstacle(
            what="heartbeats",
            why="this process's own heartbeats do not come back",
            do="can it write and read the heartbeats topic?",
        )
    yield from of_roles(members)
    yield from _halts(view, living)
    yield from of_keys(living)
    yield from of_clocks(living, wanted.lifetime)
    yield from of_configurations(wanted, view, living)
    yield from of_partitions(wanted, view, living)
    for member in living:
        if member.beat.id != view.own:
            for one in member.beat.obstacles:
                if one.what == (VERDICTS if view.own is None else CLOCKS):
                    # A process measures clocks itself; a command line has read newer health records than these.
                    continue
                yield Obstacle(what=one.what, why=f"{member.beat.name}: {one.why}", do=one.do, waits=one.waits)
    yield from of_telemetry(wanted, living)


def _halts(view: View, living: Sequence[Member]) -> Iterator[Obstacle]:
    for member in alive(living, "executor"):
        if member.beat.halted is not None and member.beat.id != view.own:
            yield Obstacle(what="automation", why=f"{member.beat.name}: {member.beat.halted}")


def of_telemetry(wanted: Wanted, living: Sequence[Member]) -> Iterator[Obstacle]:
    """An obstacle for each telemetry topic without samples, or with too many that cannot be used."""
    counts = [count for member in living for count in member.beat.telemetry]
    for topic in wanted.telemetry:
        of = [count for count in counts if count.topic == topic]
        received, rejected = sum(count.received for count in of), sum(count.rejected for count in of)
        no_outcome = sum(count.no_outcome for count in of)
        worst = max(of, key=lambda count: count.rejected, default=None)
        if worst is None or received <= 0:
            yield Obstacle(
                what=topic,
                why=f"{topic}: no sample came in the last minute",
                do="do the services write to it?",
                waits=True,
            )
        elif rejected > REJECTED_MOST * received:
            example = f", such as {worst.example}" if worst.example else ""
            yield Obstacle(
                what=topic,
                why=f"{topic}: {rejected:,} of {received:,} samples of the last minute were rejected: "
                f"{worst.reason or 'see the rejected topic'}{example}",
                do="mend the producer",
            )
        elif wanted.outcomes and no_outcome > REJECTED_MOST * received:
            yield Obstacle(
                what=topic,
                why=f"{topic}: {no_outcome:,} of {received:,} samples of the last minute do not say how the "
                "request ended",
                do="send `status` as a number, or `outcome`; `flipback doctor` shows what comes instead",
                waits=True,
            )


def _of_flags(wanted: Wanted, ages: Mapping[FlagKey, float] | None, *, updating: bool) -> Iterator[Obstacle]:
    """An obstacle for flags without a recent state: a trigger rolls a flag back only if its state is known.

    While processes with an older file are being replaced (`updating`), flags that are new in the file wait.
    """
    if ages is None:
        yield Obstacle(what="flags", why="the states of the flags have not been read", do="is a broker up?")
        return
    unknown = [name for name in sorted(wanted.flags) if name not in ages]
    old = [name for name in sorted(wanted.flags) if not ages.get(name, 0.0) <= UNREAD_AFTER]
    for flags, why in (
        (unknown, "no executor has ever told the state of"),
        (old, f"for more than {UNREAD_AFTER:.0f} s no executor has read"),
    ):
        if flags:
            yield Obstacle(
                what="flags",
                why=f"{why} {shortened(['/'.join(name) for name in flags])}",
                do="does the executor that is active have the same file, and can it read the flag?",
                waits=updating,
            )
